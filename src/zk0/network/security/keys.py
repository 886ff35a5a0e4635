"""A site's key pair: what it proves its name with.

Flower's SuperNode takes the private key in OpenSSH's form, and `flwr supernode register` the public one as
a line of text, both on a NIST curve; on the wire the public key is PEM.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from zk0.errors import StageError
from zk0.files import write_text
from zk0.private_files import private_folder, read_private, write_private

_CURVES = {
    "ecdsa-sha2-nistp256": ec.SECP256R1,
    "ecdsa-sha2-nistp384": ec.SECP384R1,
    "ecdsa-sha2-nistp521": ec.SECP521R1,
}
_EXPECTED = (
    "a public key on a NIST curve, as `zk0 client keys` and `ssh-keygen -t ecdsa -b 384` make them, was expected"
)
_LIMIT = 4096
_PRIVATE = "site.key"


@dataclass(frozen=True)
class PublicKey:
    """A site's public key.

    Attributes:
        line: ``ecdsa-sha2-nistp384 AAAA...``, without a comment.
    """

    line: str

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """For the `cryptography` library."""
        # parse() let nothing else in
        return cast(ec.EllipticCurvePublicKey, serialization.load_ssh_public_key(self.line.encode()))

    @property
    def fingerprint(self) -> str:
        """SHA-256 as ssh-keygen prints it: ``SHA256:`` and base64."""
        return key_fingerprint(self.key)

    @property
    def pem(self) -> bytes:
        """As Flower sends and stores it."""
        return self.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey) -> PublicKey:
        """From a key of the `cryptography` library."""
        return cls(key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode())

    @classmethod
    def parse(cls, text: str, origin: str = "the public key") -> PublicKey:
        """Read one line of text.

        Raises:
            StageError: It is another kind of key, a private one, or none; says which.
        """
        line = text.strip()
        if "PRIVATE KEY" in line:
            raise StageError(
                f"{origin} is a private key: it must never leave its site. Send the one line of the file that ends in "
                ".pub, and if this one has been sent to somebody, make a new pair"
            )
        kind = line.split(maxsplit=1)[0] if line else ""
        if len(line) > _LIMIT or "\n" in line or kind not in _CURVES:
            found = f"a key of kind '{kind}'" if kind.startswith(("ssh-", "sk-", "ecdsa-")) else "no such key"
            raise StageError(f"{origin} holds {found}; {_EXPECTED}")
        try:
            key = serialization.load_ssh_public_key(line.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise StageError(f"{origin} is damaged ({error}); copy the line of the .pub file whole") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES[kind]):
            raise StageError(f"{origin} says '{kind}' and holds another kind of key; {_EXPECTED}")
        return cls.of(key)

    @classmethod
    def read(cls, where: str | Path | PublicKey) -> PublicKey:
        """Read a file, or one line of text given in its place; a key that is parsed already is returned.

        Raises:
            StageError: See :meth:`parse`; or the file is missing.
        """
        if isinstance(where, PublicKey):
            return where
        text = str(where)
        if isinstance(where, str) and (text.lstrip().startswith(("ecdsa-", "ssh-", "sk-", "-----")) or "\n" in text):
            return cls.parse(text)
        path = Path(text).expanduser()
        if not path.is_file():
            raise StageError(f"there is no file {path}; give a public key's file, or its one line in quotes")
        if path.stat().st_size > _LIMIT:
            raise StageError(f"{path} is too large for a public key; {_EXPECTED}")
        return cls.parse(path.read_text(errors="replace"), str(path))


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key, as ssh-keygen prints it."""
    digest = serialization.ssh_key_fingerprint(key, hashes.SHA256())
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class NodeKey:
    """A site's key pair: ``site.key`` (0600) and ``site.pub`` in a folder of its own.

    Attributes:
        folder: Where both are.
        public: The public one.
    """

    folder: Path
    public: PublicKey

    @property
    def path(self) -> Path:
        """The private key, as `flower-supernode --auth-supernode-private-key` takes it."""
        return self.folder / _PRIVATE

    @property
    def public_path(self) -> Path:
        """The public key's one line, for the operator and `flwr supernode register`."""
        return self.folder / "site.pub"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key, as ssh-keygen prints it."""
        return self.public.fingerprint

    @classmethod
    def create(cls, folder: Path, comment: str = "zk0") -> NodeKey:
        """Make a key pair on P-384.

        Args:
            folder: Where; made if need be, readable by its owner alone.
            comment: Ends the public key's line; says whose it is.

        Raises:
            StageError: There is one already.
        """
        private_folder(folder)
        key = ec.generate_private_key(ec.SECP384R1())
        content = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        made = cls(folder, PublicKey.of(key.public_key()))
        write_private(made.path, content, "use it, or have it replaced, and the operator admit the new one")
        write_text(made.public_path, f"{made.public.line} {' '.join(comment.split())}")
        return made

    @classmethod
    def open(cls, folder: Path) -> NodeKey:
        """Read a key pair; the public key is taken from the private one.

        Raises:
            StageError: It is missing, open to others, or of a kind that Flower does not take.
        """
        return cls(folder, PublicKey.of(_private_key(folder / _PRIVATE).public_key()))

    def private(self) -> ec.EllipticCurvePrivateKey:
        """The private key, to sign with; see :meth:`open`."""
        return _private_key(self.path)


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    content = read_private(path, "`zk0 client keys` makes a pair")
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StageError(f"{path} holds no private key in OpenSSH's form without a password ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StageError(f"{path} holds a {type(key).__name__.lstrip('_')}; one on a NIST curve was expected")
    return key
