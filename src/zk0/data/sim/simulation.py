"""One arm, one table, one object: reset it, step it, look at it, ask whether the task is done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from zk0.data.sim.arm import TOOL_SITE, WRIST_CAMERA, Units, arm_spec
from zk0.data.sim.rooms import PLAIN, Room
from zk0.data.sim.table import add_table, show_in_sight
from zk0.data.sim.tasks import COLOURS, PAN_AXIS_X_M, SimTask
from zk0.runtime_env import keep_whole
from zk0.so100 import JOINTS

CAMERAS: dict[str, str] = {"top": "top", "wrist": WRIST_CAMERA}
CONTROL_HZ = 10
HOME = np.array([0.0, -80.0, 50.0, 70.0, 0.0, 5.0], dtype=np.float32)

_GEOM = mujoco.mjtGeom
# Shape: MuJoCo geom, its size in metres, the height of its centre, its mass in kg.
_SHAPES: dict[str, tuple[int, list[float], float, float]] = {
    "cube": (_GEOM.mjGEOM_BOX, [0.02, 0.02, 0.02], 0.02, 0.05),
    "ball": (_GEOM.mjGEOM_SPHERE, [0.022, 0, 0], 0.022, 0.05),
    "cylinder": (_GEOM.mjGEOM_CYLINDER, [0.02, 0.025, 0], 0.025, 0.05),
    "capsule": (_GEOM.mjGEOM_CAPSULE, [0.018, 0.012, 0], 0.03, 0.05),
    "block": (_GEOM.mjGEOM_BOX, [0.016, 0.03, 0.025], 0.025, 0.05),
    "bar": (_GEOM.mjGEOM_BOX, [0.014, 0.034, 0.014], 0.014, 0.05),
    "disc": (_GEOM.mjGEOM_CYLINDER, [0.032, 0.002, 0], 0.002, 0.0),
    "plate": (_GEOM.mjGEOM_BOX, [0.026, 0.026, 0.002], 0.002, 0.0),
}

MOVE_M = 0.03  # an object counts as pushed or pulled when it has moved this far in its direction
PRESS_RADIUS_M = 0.025  # pressing: the tool stands this close, seen from above, ...
PRESS_HEIGHT_M = 0.025  # ... at most this high ...
PRESS_STEPS = 2  # ... for this many control steps on end
POINT_RADIUS_M = 0.03  # pointing: the tool stands this close, seen from above ...
POINT_HEIGHT_M = (0.03, 0.10)  # ... at this height ...
POINT_STEPS = 4  # ... for this many control steps on end


@dataclass
class Scene:
    """What one episode is about; the draw belongs to the episode's seed."""

    shape: str
    colour: str
    x: float
    y: float
    yaw: float
    start: np.ndarray = field(repr=False)


class Simulation:
    """The embedded SO-101 with a single object on a table.

    Physics needs no GL; a renderer is created when the first image is asked for.

    Args:
        task: What to do; decides which objects appear where.
        image_size: Height and width of both camera images in pixels.
        share: Another simulation whose compiled models and GL contexts this one uses too, so that
            many episodes can run side by side. Each room has its own.
        room: Where the arm stands.

    Example:
        >>> from zk0.data.sim.tasks import find_task
        >>> sim = Simulation(find_task("push-red-cube-left"))
        >>> sim.reset(seed=7)
        >>> sim.step(sim.state())
        >>> sim.success
        False
    """

    def __init__(
        self, task: SimTask, image_size: int = 96, share: Simulation | None = None, room: Room = PLAIN
    ) -> None:
        self.task = task
        self.image_size = image_size
        self.room = room
        self._models: dict[tuple[Room, str], mujoco.MjModel] = share._models if share else {}
        self._renderers: dict[tuple[Room, str, int], mujoco.Renderer] = share._renderers if share else {}

    # -- episodes ------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        """Draw and set up the episode of that seed."""
        rng = np.random.default_rng(seed)
        shape = str(rng.choice(self.task.shapes))
        colour = str(rng.choice(self.task.colours))
        x, y = self.task.place(rng)
        jitter = rng.uniform(-1.0, 1.0, size=6) * np.array([18.0, 8.0, 8.0, 8.0, 6.0, 4.0])
        self.scene = Scene(shape, colour, x, y, rng.uniform(-math.pi, math.pi), HOME + jitter)
        self._direction = self.task.direction(x, y)
        if self._direction is not None:  # a long face towards the arm, or moving it turns the block
            self.scene.yaw = math.atan2(y, x - PAN_AXIS_X_M) + rng.uniform(-0.2, 0.2)
        if (self.room, shape) not in self._models:
            self._models[self.room, shape] = _build(shape, self.room)
        self.model = self._models[self.room, shape]
        self.data = mujoco.MjData(self.model)
        self.units = Units(self.model, self.room.joints)
        self._place_object()
        self.data.qpos[:6] = self.data.ctrl[:6] = self.units.to_mujoco(self.scene.start)
        mujoco.mj_forward(self.model, self.data)
        self._start_cameras(seed)
        self._steps_held = 0
        self.success = False

    def step(self, action: np.ndarray) -> None:
        """Hold the joint targets ``action`` (6 values, LeRobot's units) for one control step."""
        target, late = self.units.to_mujoco(action), round(self.room.delay_s / self.model.opt.timestep)
        for count in range(round(1 / CONTROL_HZ / self.model.opt.timestep)):
            if count == late:  # until then it follows the target before
                self.data.ctrl[:6] = target
            mujoco.mj_step(self.model, self.data)
            self._take_picture()
            if self.task.verb == "touch" and self._gripper_touches():
                self.success = True
        if self._direction is not None:
            moved = self.object_position[:2] - [self.scene.x, self.scene.y]
            self.success |= bool(moved @ self._direction >= MOVE_M)
        elif self.task.verb in ("point", "press"):
            self._steps_held = self._steps_held + 1 if self._over_object() else 0
            self.success |= self._steps_held >= (POINT_STEPS if self.task.verb == "point" else PRESS_STEPS)

    # -- observations --------------------------------------------------------------------------

    def state(self) -> np.ndarray:
        """Joint positions, (6,) float32 in LeRobot's units."""
        return self.units.to_lerobot(self.data.qpos[:6].copy())

    def images(self) -> dict[str, np.ndarray]:
        """Both cameras, each (size, size, 3) uint8."""
        return {name: self.render(camera) for name, camera in CAMERAS.items()}

    def render(self, camera: str = "top", size: int | None = None) -> np.ndarray:
        """One camera's image, (size, size, 3) uint8."""
        size = size or self.image_size
        key = (self.room, self.scene.shape, size)
        if key not in self._renderers:
            keep_whole()
            self._renderers[key] = renderer = mujoco.Renderer(self.model, size, size)
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self.model.geom("object").rgba[:3] = np.clip(np.add(COLOURS[self.scene.colour], self.room.shade), 0.0, 1.0)
        show_in_sight(self.model, self._pictured, camera)
        self._renderers[key].update_scene(self._pictured, camera=camera)
        return np.asarray(self._renderers[key].render())

    @property
    def sentence(self) -> str:
        """The instruction of the current episode."""
        return self.task.sentence(self.scene.shape, self.scene.colour)

    @property
    def tool(self) -> np.ndarray:
        """Position of the tool between the finger tips, (3,) metres in the base frame."""
        return np.asarray(self.data.site(TOOL_SITE).xpos)

    @property
    def object_position(self) -> np.ndarray:
        """Position of the object's centre, (3,) metres in the base frame."""
        return np.asarray(self.data.body("object").xpos)

    def close(self) -> None:
        """Release the GL contexts; without it EGL complains when Python exits."""
        while self._renderers:
            self._renderers.popitem()[1].close()

    # -- inside --------------------------------------------------------------------------------

    def _place_object(self) -> None:
        scene = self.scene
        height = _SHAPES[scene.shape][2]
        quat = np.array([math.cos(scene.yaw / 2), 0.0, 0.0, math.sin(scene.yaw / 2)])
        if self.model.body("object").jntnum[0]:
            self.data.joint("object").qpos = np.concatenate([[scene.x, scene.y, height], quat])
        else:  # a disc is a mark on the table: nothing can move it
            self.data.mocap_pos[0] = [scene.x, scene.y, height]
            self.data.mocap_quat[0] = quat

    def _start_cameras(self, seed: int) -> None:
        """Let the cameras run: how long ago they took their last picture is of the episode."""
        self._frame = round(self.room.frame_s / self.model.opt.timestep)  # physics steps from one picture to the next
        self._since = int(np.random.default_rng([seed, 2]).integers(self._frame)) if self._frame else 0
        self._pictured = self.data if not self._frame else mujoco.MjData(self.model)
        if self._frame:
            mujoco.mj_copyData(self._pictured, self.model, self.data)

    def _take_picture(self) -> None:
        """Keep what the cameras saw, if it is time; a picture is rendered only when somebody looks."""
        if not self._frame:
            return
        self._since = (self._since + 1) % self._frame
        if not self._since:
            mujoco.mj_copyData(self._pictured, self.model, self.data)

    def _gripper_touches(self) -> bool:
        target = self.model.body("object").id
        hands = (self.model.body("gripper").id, self.model.body("moving_jaw_so101_v1").id)
        body_of = self.model.geom_bodyid
        for contact in self.data.contact:
            pair = (body_of[contact.geom1], body_of[contact.geom2])
            if target in pair and (pair[0] in hands or pair[1] in hands):
                return True
        return False

    def _over_object(self) -> bool:
        """Whether the tool stands over the object, as near and low as pointing or pressing asks."""
        away, height = np.linalg.norm(self.tool[:2] - self.object_position[:2]), self.tool[2]
        if self.task.verb == "press":
            return bool(away <= PRESS_RADIUS_M and height <= PRESS_HEIGHT_M)
        return bool(away <= POINT_RADIUS_M and POINT_HEIGHT_M[0] <= height <= POINT_HEIGHT_M[1])


def _build(shape: str, room: Room) -> mujoco.MjModel:
    """Compile the arm on its table in a room, with one object."""
    spec = arm_spec()
    world = spec.worldbody
    _furnish(spec, room)
    geom_type, size, height, mass = _SHAPES[shape]
    body = world.add_body(name="object", pos=[0.25, 0.0, height])
    solid = mass > 0
    if solid:
        body.add_freejoint().name = "object"
    else:
        body.mocap = True
    geom = body.add_geom(type=geom_type, name="object", size=size, contype=int(solid), conaffinity=int(solid))
    if solid:
        geom.mass = mass
        geom.friction = [0.6, 0.02, 0.002]
        geom.condim = 6  # with rolling friction, or a touched ball leaves the table
    spec.visual.quality.shadowsize = 0
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth = spec.visual.global_.offheight = 512
    model = spec.compile()
    assert [model.joint(i).name for i in range(6)] == list(JOINTS)
    return model


def _furnish(spec: mujoco.MjSpec, room: Room) -> None:
    """Add lamp, table, background and top camera."""
    world, light = spec.worldbody, np.array(room.light)
    world.add_light(
        pos=[0.2, 0, 1.2],
        dir=room.lamp,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        castshadow=False,
        diffuse=0.6 * light,
    )
    for part in (headlight := spec.visual.headlight).ambient, headlight.diffuse, headlight.specular:
        part *= light
    if room.background != PLAIN.background:
        spec.add_texture(
            name="background",
            type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            rgb1=np.clip(room.background, 0.0, 1.0),
            width=8,
            height=48,
        )
    add_table(spec, room)
    axes = np.array([[0, 1, 0], [-0.74, 0, 0.67], [0.67, 0, 0.74]])
    turned = Rotation.from_euler("xyz", room.camera_deg, degrees=True).as_matrix().T @ axes
    world.add_camera(
        name="top",
        pos=np.array([0.60, 0, 0.52]) + room.camera_m,
        xyaxes=turned[:2].ravel(),
        fovy=46,
    )
