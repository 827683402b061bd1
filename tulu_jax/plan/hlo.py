"""What a compiled program sends between devices, read from its text.

A collective inside a loop counts as often as the loop turns; the layers of a model are such a loop.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

BYTES = {"pred": 1, "bf16": 2, "c64": 8, "c128": 16, "token": 0}
KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast",
)  # fmt: skip

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Calls of one kind over groups of one size and one network."""

    kind: str
    group_size: int
    """Devices that take part together."""
    crosses_slices: bool
    """Whether a group has devices of several slices: then it goes over the data-center network."""
    count: int
    """Calls in one run of the program."""
    payload_bytes: float
    """Bytes of the whole arrays that are gathered, reduced or exchanged, over all calls."""
    sent_bytes: float
    """Bytes that one device sends in all calls, by a ring: all-gather, reduce-scatter and
    all-to-all (n - 1) / n of the payload, all-reduce twice that, permute all of it."""


@dataclasses.dataclass(frozen=True)
class Traffic:
    """All collectives of a program, and how many of its loops turn as the data says."""

    collectives: tuple[Collective, ...]
    open_loops: int = 0
    """Loops whose number of turns is not in the program; taken as `open_loop_turns`."""

    def sent_bytes(self, *, crosses_slices: bool) -> float:
        """Bytes that a device sends in one run, over one of the two networks."""
        return sum(c.sent_bytes for c in self.collectives if c.crosses_slices == crosses_slices)


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str
    """Operands and attributes."""
    is_root: bool


def read_traffic(
    text: str, *, num_devices: int, slices: Sequence[int] = (), open_loop_turns: int = 1
) -> Traffic:
    """The collectives of a compiled program.

    A loop of 32 turns that gathers bf16[4096, 1024] to bf16[4096, 4096] over 4 devices has
    32 all-gathers, 32 x 32 MiB of payload, 32 x 24 MiB sent by each device.

    Args:
      text: HLO after the compiler's last pass, as `Compiled.as_text()` gives it.
      num_devices: devices of the program.
      slices: the slice of each device, in the program's order; empty for one slice.
      open_loop_turns: what to take for loops whose number of turns depends on data.
    """
    computations, entry = _parse(text)
    found: dict[tuple[str, int, bool], list[float]] = {}
    loops = 0
    for instruction, kind, turns, opened in _walk(computations, entry, 1, open_loop_turns):
        loops += opened
        if kind is None:
            continue
        size, crosses = _group(instruction, num_devices, slices)
        if kind == "collective-permute":
            size = 2
        if size < 2:
            continue
        payload = _payload(instruction, kind, size)
        sums = found.setdefault((kind, size, crosses), [0.0, 0.0, 0.0])
        for i, value in enumerate((1, payload, payload * _share_sent(kind, size))):
            sums[i] += value * turns
    return Traffic(
        tuple(
            Collective(kind, size, crosses, int(count), payload, sent)
            for (kind, size, crosses), (count, payload, sent) in sorted(found.items())
        ),
        loops,
    )


def _group(instruction: _Instruction, num_devices: int, slices: Sequence[int]) -> tuple[int, bool]:
    """Devices that take part together, and whether they are of several slices."""
    if instruction.opcode == "send":
        return len(set(slices)), True
    groups = _groups(instruction.rest, num_devices)
    crosses = bool(slices) and any(len({slices[i] for i in group}) > 1 for group in groups)
    return len(groups[0]) if groups else num_devices, crosses


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Instructions by computation, and the name of the entry."""
    computations: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            if line.endswith("{") and (head := _COMPUTATION.match(line)):
                current = computations.setdefault(head[2], [])
                entry = head[2] if head[1] else entry
        # Kernels are written over several lines, some of which begin so too.
        elif line == "}" or line.startswith("}, execution_thread="):
            current = None
        elif (instruction := _instruction(line)) is not None:
            current.append(instruction)
    return computations, entry


def _instruction(line: str) -> _Instruction | None:
    name, equals, rest = line.strip().partition(" = ")
    if not equals:
        return None
    end = _closing(rest) if rest.startswith("(") else rest.find(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    is_root = name.startswith("ROOT ")
    return _Instruction(name.removeprefix("ROOT ").lstrip("%"), shape, opcode, rest, is_root)


def _closing(text: str) -> int:
    """Where the bracket that opens `text` is closed, plus 1."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at + 1
    return len(text)


def _walk(
    computations: dict[str, list[_Instruction]], name: str, turns: int, open_turns: int
) -> Iterator[tuple[_Instruction, str | None, int, int]]:
    """Every collective with its kind and turns, and for each open loop a 1 in the last place."""
    for instruction in computations.get(name, ()):
        kind = _kind(instruction)
        if kind in KINDS:
            yield instruction, kind, turns, 0
            continue
        inner = turns
        if instruction.opcode == "while":
            known = _turns(instruction, computations)
            inner *= open_turns if known is None else known
            if known is None:
                yield instruction, None, turns, 1
        for called in _called(instruction):
            if (summed := _scattered(computations.get(called, ()))) is not None:
                yield summed, "reduce-scatter", inner, 0
            else:
                yield from _walk(computations, called, inner, open_turns)


def _kind(instruction: _Instruction) -> str:
    """What it does; between slices a TPU's host sends, and a note says to what end."""
    if instruction.opcode == "send" and (noted := _BETWEEN_SLICES.search(instruction.rest)):
        kind = noted[1].lower().replace("_", "-")
        return "collective-permute" if kind == "one-to-one" else kind
    return instruction.opcode.removesuffix("-start")


def _called(instruction: _Instruction) -> list[str]:
    names = _CALLED.findall(instruction.rest)
    if branches := _BRANCHES.search(instruction.rest):
        names += [name.strip().lstrip("%") for name in branches[1].split(",")]
    if instruction.opcode in ("call", "call-start"):
        names += re.findall(r"to_apply=%?([\w.\-]+)", instruction.rest)
    return names


def _scattered(body: Sequence[_Instruction]) -> _Instruction | None:
    """The all-reduce of a fusion that keeps only a slice of it: TPU's form of reduce-scatter."""
    reduces = [instruction for instruction in body if instruction.opcode == "all-reduce"]
    ends = [instruction for instruction in body if instruction.is_root]
    if len(reduces) == 1 and ends and ends[0].opcode in ("dynamic-slice", "bitcast"):
        slices = any(instruction.opcode == "dynamic-slice" for instruction in body)
        return reduces[0] if slices else None
    return None


def _turns(loop: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """Turns of a loop: as the compiler notes, or counted from 0 to a constant; else None."""
    if known := _TRIPS.search(loop.rest):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop.rest)
    body = computations.get(condition[1], []) if condition else []
    ends = [i for i in body if i.is_root and i.opcode == "compare" and "direction=LT" in i.rest]
    constants = {i.name: i.rest for i in body if i.opcode == "constant"}
    places = {i.name: i.rest for i in body if i.opcode == "get-tuple-element"}
    for end in ends:
        counted = 0
        for operand in _operands(end):
            if place := re.search(r"index=(\d+)", places.get(operand, "")):
                counted = int(place[1])
            if number := re.match(r"(\d+)\)", constants.get(operand, "")):
                return -(-int(number[1]) // _stride(loop, counted, computations))
    return None


def _operands(instruction: _Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", instruction.rest.partition(")")[0])


def _stride(loop: _Instruction, counted: int, computations: dict[str, list[_Instruction]]) -> int:
    """By how much a turn adds to the loop's counter: more than 1 where a body was unrolled."""
    name = re.search(r"body=%?([\w.\-]+)", loop.rest)
    body = {i.name: i for i in computations.get(name[1], [])} if name else {}
    root = next((i for i in body.values() if i.is_root and i.opcode == "tuple"), None)
    operands = _operands(root) if root else []
    total, at = 0, operands[counted] if counted < len(operands) else ""
    while (added := body.get(at)) is not None and added.opcode == "add":
        at = ""
        for operand in _operands(added):
            one = body.get(operand)
            number = re.match(r"(\d+)\)", one.rest) if one and one.opcode == "constant" else None
            total += int(number[1]) if number else 0
            at = at if number else operand
    return total or 1


def _payload(instruction: _Instruction, kind: str, size: int) -> float:
    """Bytes of the whole array of one call."""
    shape = instruction.shape
    if instruction.opcode == "send":
        one = _shape_bytes(_elements(shape)[0])
        return one * size if kind == "all-gather" else one
    pairs = ("all-gather", "collective-permute", "collective-broadcast")
    if instruction.opcode.endswith("-start") and kind in pairs and shape.startswith("("):
        shape = _elements(shape)[1]  # Operands come first, then results.
    total = _shape_bytes(shape)
    return total * size if instruction.opcode.startswith("reduce-scatter") else total


def _elements(shape: str) -> list[str]:
    """The parts of a tuple's shape."""
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(shape):
        depth += (letter in "({[") - (letter in ")}]")
        if (letter == "," and depth == 1) or depth == 0:
            parts.append(shape[start:at].strip())
            start = at + 1
    return parts


def _shape_bytes(shape: str) -> float:
    """Bytes of all arrays of a shape.

    >>> _shape_bytes("(bf16[2,3]{1,0:T(8,128)(2,1)}, f32[])")
    16.0
    """
    total = 0.0
    for dtype, sides in _ARRAY.findall(shape):
        count = math.prod(int(side) for side in sides.split(",") if side)
        width = re.search(r"\d+", dtype)
        total += count * (BYTES[dtype] if dtype in BYTES else int(width[0]) / 8 if width else 0)
    return total


def _share_sent(kind: str, size: int) -> float:
    around = (size - 1) / size
    return {"all-reduce": 2 * around, "collective-permute": 1.0}.get(kind, around)


def _groups(rest: str, num_devices: int) -> list[list[int]]:
    """The devices of each group, from any of the forms that XLA writes.

    >>> _groups("replica_groups=[2,2]<=[2,2]T(1,0), x", 4)
    [[0, 2], [1, 3]]
    >>> _groups("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", 4)
    [[0, 1], [2, 3]]
    """
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", rest):
        return _listed(pairs[1])
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)+)\}", rest):
        return _listed(listed[1])
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        ids = np.arange(num_devices).reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            ids = ids.transpose([int(n) for n in iota[4].split(",")])
        return ids.reshape(int(iota[1]), int(iota[2])).tolist()
    if mesh := re.search(r"replica_groups=@?mesh\[([^\]]*)\][^{,]*\{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        over = [name for name in sizes if f"'{name}'" in mesh[2]]
        ids = np.arange(math.prod(sizes.values())).reshape(list(sizes.values()))
        axes = [list(sizes).index(name) for name in over]
        ids = np.moveaxis(ids, axes, range(-len(axes), 0)) if axes else ids[..., None]
        return ids.reshape(-1, math.prod(sizes[name] for name in over)).tolist()
    return [list(range(num_devices))]


def _listed(text: str) -> list[list[int]]:
    return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", text)]
