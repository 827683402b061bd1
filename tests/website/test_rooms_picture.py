"""The picture of the rooms: what the layout's test allows, and what the code does."""

import re

import pytest
import test_layout

from website.rooms import BESIDES, arrange, closure, levels, needed, picture, room_of, rooms, table
from website.source import ROOT


def test_rooms_are_those_of_the_layout():
    found = rooms()
    assert set(found) == set(test_layout.MAY_IMPORT)
    for room, (allowed, _) in test_layout.MAY_IMPORT.items():
        inside = {one.removeprefix("tulu_jax/") for one in found[room] - BESIDES.get(room, set())}
        assert inside == allowed


def test_arrows_say_all_that_the_code_imports():
    below = closure(needed(rooms()))
    seen = 0
    for room, path in test_layout.files():
        for name in test_layout.imported_modules(path):
            as_path = name.replace(".", "/")
            if not (ROOT / as_path).is_dir() and not (ROOT / f"{as_path}.py").is_file():
                continue
            other = room_of(f"{as_path}/")
            program = path.name in test_layout.PROGRAMS and other == "tulu_jax/cli"
            if other in ("tulu_jax", "tulu_jax/places", room) or program:
                continue
            assert other in below[room], f"{path} imports {name}"
            seen += 1
    assert seen > 500


def test_nothing_points_upwards():
    allowed = rooms()
    row = levels(allowed)
    assert all(row[room] > row[one] for room, of in allowed.items() for one in of)
    for upper, lower in arrange(allowed).steps:
        rows = arrange(allowed).rows
        number = {node: index for index, nodes in enumerate(rows) for node in nodes}
        assert number[upper] == number[lower] + 1


def test_boxes_do_not_overlap():
    drawn = picture(rooms(), {})
    boxes = re.findall(r'<rect x="(-?\d+)" y="(\d+)" width="(\d+)" height="(\d+)"', drawn)
    boxes = [tuple(map(int, box)) for box in boxes]
    assert len(boxes) == len(rooms())
    width, height = map(int, re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn).groups())
    for index, (x, y, w, h) in enumerate(boxes):
        assert x >= 0 and x + w <= width and y + h <= height
        for other_x, other_y, _, _ in boxes[index + 1 :]:
            assert abs(x - other_x) >= w or abs(y - other_y) >= h


def test_the_table_names_every_room():
    lines = table(rooms()).splitlines()
    assert len(lines) == len(rooms()) + 2
    assert all(line.count("|") == 4 for line in lines)


@pytest.mark.parametrize("room", sorted(rooms()))
def test_every_room_says_what_it_holds(room):
    assert len(next(line for line in table({room: set()}).splitlines()[2:]).split("|")[2]) > 10
