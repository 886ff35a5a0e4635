"""The features and joints of an SO-100 or SO-101 recording, by LeRobot's names and in its order."""

from __future__ import annotations

# Features of a recording; cameras stand behind IMAGES and a dot.
STATE = "observation.state"
ACTION = "action"
IMAGES = "observation.images"

ARM_JOINTS: tuple[str, ...] = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
JOINTS: tuple[str, ...] = (*ARM_JOINTS, "gripper")
FEATURE_NAMES: tuple[str, ...] = tuple(f"{joint}.pos" for joint in JOINTS)

# LeRobot drives both arms by one class: same joints, motors and kinematics; the SO-101 is wired and geared better.
ROBOTS: tuple[str, ...] = ("so100", "so101", "so100_follower", "so101_follower", "so_follower")


def embodiment(robot_type: str) -> str:
    """What has to be alike among sites: ``SO-100/SO-101`` for both arms by all their names, else the type itself."""
    return "SO-100/SO-101" if robot_type in ROBOTS else robot_type
