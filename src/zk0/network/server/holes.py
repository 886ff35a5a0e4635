"""Versions of packages with known holes, of those that meet what strangers send; as of November 2025.

A list in the code ends at some date; ``pip-audit -r requirements/lock.txt`` asks the databases themselves.
"""

from __future__ import annotations

from packaging.version import Version

from zk0.machine.packages import installed

# Package: the first version without the hole, and what the hole was.
MENDED = {
    "cryptography": ("44.0.1", "CVE-2024-12797: OpenSSL does not notice that a server did not authenticate"),
    "h11": ("0.16.0", "CVE-2025-43859: requests smuggled by malformed chunks"),
    "jinja2": ("3.1.6", "CVE-2025-27516: code from templates"),
    "protobuf": ("5.29.5", "CVE-2025-4565: recursion without an end"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials for another host"),
    "starlette": ("0.49.1", "CVE-2025-62727: quadratic time for a range header"),
    "torch": ("2.6.0", "CVE-2025-32434: code from weights"),
    "urllib3": ("2.5.0", "CVE-2025-50181: redirects that were switched off"),
}


def known_holes() -> list[str]:
    """Installed versions that are older than the one in which a hole was mended, a sentence each."""
    found = []
    for name, (mended, hole) in MENDED.items():
        version = installed(name)
        if version is not None and Version(version) < Version(mended):
            found.append(f"{name} {version} has {hole}; {mended} has not")
    return found
