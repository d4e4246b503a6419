"""Run by the interpreter that PENSTOCK_PEPPI names: what peppi reads from a replay, as an Arrow file.

    python peppi_arrays.py GAME.slp OUT.arrow

Keys are ``<port index>.<0 leader, 1 follower>.<column>``, and ``frame``.
"""

import sys

import peppi_py
import pyarrow as pa
import pyarrow.feather


def main(path, out):
    game = peppi_py.read_slippi(path)
    arrays = {"frame": game.frames.id}
    for index, port in enumerate(game.frames.ports):
        for follower, data in enumerate((port.leader, port.follower)):
            if data is None:
                continue
            pre, post = data.pre, data.post
            columns = {
                "stick_x": pre.joystick.x,
                "stick_y": pre.joystick.y,
                "c_x": pre.cstick.x,
                "c_y": pre.cstick.y,
                "trigger_l": pre.triggers_physical.l,
                "trigger_r": pre.triggers_physical.r,
                "buttons": pre.buttons,
                "buttons_phys": pre.buttons_physical,
                "input.action_state": pre.state,
                "seed": pre.random_seed,
                "character": post.character,
                "state.action_state": post.state,
                "x": post.position.x,
                "y": post.position.y,
                "facing": post.direction,
                "percent": post.percent,
                "shield": post.shield,
                "stocks": post.stocks,
                "airborne": post.airborne,
            }
            for name, column in columns.items():
                if column is not None:
                    arrays[f"{index}.{follower}.{name}"] = column
    pa.feather.write_feather(pa.table(arrays), out, compression="uncompressed")


main(*sys.argv[1:3])
