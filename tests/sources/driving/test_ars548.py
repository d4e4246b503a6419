"""ARS548 packets against the ground truth that nebula gives for a real recording, and against plain struct."""

from __future__ import annotations

import dataclasses
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import penstock.sources.driving._radar_reader as radar_reader
import penstock.sources.driving._rosbag2_sqlite as rosbag2_sqlite
import pytest
from mcap.writer import Writer
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.driving._radar_packets import nebula_packets, nebula_topics
from penstock.sources.driving.ars548 import Ars548, decode_ars548, inspect_ars548, is_ars548_packet, open_ars548
from radar_files import (
    DEFINITION,
    TOPIC,
    bag_messages,
    deserialized,
    detection_packet,
    message,
    read_radar,
    truth,
    write_bag,
    write_capture,
)

SENT = 1_708_578_203_955_760_000


@pytest.fixture(scope="module")
def folder(recordings: Callable[[str], Path]) -> Path:
    return recordings("driving/nebula_radar_ros2")


@pytest.fixture(scope="module")
def bag(folder: Path) -> Path:
    return folder / "ars548" / "1708578204.db3"


def near(got: Any, wanted: Any) -> bool:
    """Equal to the six digits that the truth has."""
    return math.isclose(float(got), float(wanted), rel_tol=1e-5, abs_tol=1e-12)


def test_messages_of_the_real_bag_come_apart_as_rosbags_takes_them_apart(bag: Path) -> None:
    messages = bag_messages(bag)
    assert len(messages) == 2
    for data in messages:
        frame_id, packets = nebula_packets(data)
        assert (frame_id, [(p.stamp_ns, p.data) for p in packets]) == deserialized(data)
    assert nebula_topics(str(bag)) == {"/sensing/radar/front_center/nebula_packets": 2}


def test_every_detection_of_the_real_recording_is_the_truth(folder: Path, bag: Path) -> None:
    wanted = truth(folder / "ars548_truth" / "detection.yaml")
    got = read_radar(Ars548(bag, "detections"))
    assert (len(got.rows), got.records, got.bad) == (1, 2, [])
    assert got.dropped == {"not in radar.detections: objects": 1}
    row = got.rows[0]
    stamp = wanted["header"]["stamp"]
    assert read_radar(Ars548(bag, "detections", clock="host")).rows[0]["ts_event"] == (
        stamp["sec"] * 10**9 + stamp["nanosec"]
    )
    assert (row["ts_event"], row["ts_recv"], row["seq"]) == (SENT, 1_709_877_048_998_351_210, 1)
    assert row["frame_id"] == "front_center/radar_link"
    for ours, theirs in {
        "sync": wanted["stamp_sync_status"],
        **{f"origin_{axis}": wanted["origin_pos"][axis] for axis in "xyz"},
        **{name: wanted[name] for name in ("origin_pitch", "origin_pitch_std", "origin_yaw", "origin_yaw_std")},
        "velocity_min": wanted["ambiguity_free_velocity_min"],
        "velocity_max": wanted["ambiguity_free_velocity_max"],
        "azimuth_correction": wanted["alignment_azimuth_correction"],
        "elevation_correction": wanted["alignment_elevation_correction"],
        "alignment_status": wanted["alignment_status"],
    }.items():
        assert near(row[ours], theirs), ours
    names = {
        **{name: name for name in ("range", "range_std", "range_rate", "range_rate_std", "rcs", "measurement_id")},
        "azimuth": "azimuth_angle",
        "azimuth_std": "azimuth_angle_std",
        "elevation": "elevation_angle",
        "elevation_std": "elevation_angle_std",
        "existence": "raw_positive_predictive_value",
        "classification": "classification",
        "multi_target": "raw_multi_target_probability",
        "object_id": "object_id",
        "ambiguity": "raw_ambiguity_flag",
    }
    marked = ("distance", "azimuth", "elevation", "range_rate")
    flags = [f"{name}{std}" for name in marked for std in ("", "_std")]
    assert row["n_detections"] == len(wanted["detections"]) == 308
    for ours, theirs in zip(row["detections"], wanted["detections"], strict=True):
        assert all(near(ours[a], theirs[b]) for a, b in names.items())
        assert [bool(ours["invalid"] >> bit & 1) for bit in range(8)] == [theirs[f"invalid_{flag}"] for flag in flags]


def test_points_of_the_real_scan_are_where_the_truth_puts_them(folder: Path, bag: Path) -> None:
    wanted = truth(folder / "ars548_truth" / "detection.yaml")["detections"]
    row = read_radar(Ars548(bag)).rows[0]
    assert row["n_points"] == len(row["points"]) == 308
    for point, d in zip(row["points"], wanted, strict=True):
        distance, azimuth, elevation = d["range"], d["azimuth_angle"], d["elevation_angle"]
        place = (
            math.cos(elevation) * math.cos(azimuth) * distance,
            math.cos(elevation) * math.sin(azimuth) * distance,
            math.sin(elevation) * distance,
        )
        got = [point[axis] for axis in "xyz"]
        missing = [d["invalid_distance"] or d["invalid_azimuth"]] * 2 + [d["invalid_elevation"]]
        assert all(g is None if m else abs(g - w) < 2e-3 for g, w, m in zip(got, place, missing, strict=True))
        assert near(point["vr"], d["range_rate"])
        assert point["rcs"] == d["rcs"]
        assert point["snr"] is None
        assert point["track_id"] == d["object_id"]
        assert point["flags"] >> 8 == d["classification"]


def test_every_object_of_the_real_recording_is_the_truth(folder: Path, bag: Path) -> None:
    wanted = truth(folder / "ars548_truth" / "object.yaml")
    got = read_radar(Ars548(bag, "objects"))
    assert len(got.rows) == 1
    row = got.rows[0]
    assert row["sync"] == wanted["stamp_sync_status"]
    stamp = wanted["header"]["stamp"]
    assert read_radar(Ars548(bag, "objects", clock="host")).rows[0]["ts_event"] == (
        stamp["sec"] * 10**9 + stamp["nanosec"]
    )
    classes = ("car", "truck", "motorcycle", "bicycle", "pedestrian", "animal", "hazard", "unknown")
    assert row["n_objects"] == len(wanted["objects"]) == 50
    for ours, theirs in zip(row["objects"], wanted["objects"], strict=True):
        pairs = {"id": theirs["object_id"], "existence": theirs["raw_existence_probability"]}
        pairs |= {name: theirs[name] for name in ("age", "status_measurement", "status_movement", "position_reference")}
        pairs |= {f"class_{name}": theirs[f"raw_classification_{name}"] for name in classes}
        pairs |= {axis: theirs["position"][axis] for axis in "xyz"}
        pairs |= {f"{axis}_std": theirs["position_std"][axis] for axis in "xyz"}
        pairs |= {"xy_covariance": theirs["position_covariance_xy"]}
        pairs |= {name: theirs[name] for name in ("orientation", "orientation_std", "orientation_rate_std")}
        pairs |= {"orientation_rate": theirs["orientation_rate_mean"]}
        pairs |= {"length": theirs["shape_length_edge_mean"], "width": theirs["shape_width_edge_mean"]}
        # nebula writes the relative acceleration into the relative velocity, and leaves the acceleration 0
        for name, source in (
            ("v", "absolute_velocity"),
            ("a", "absolute_acceleration"),
            ("a_rel", "relative_velocity"),
        ):
            pairs |= {f"{name}_{axis}": theirs[source][axis] for axis in "xy"}
            pairs |= {f"{name}_{axis}_std": theirs[f"{source}_std"][axis] for axis in "xy"}
            pairs |= {f"{name}_covariance": theirs[f"{source}_covariance_xy"]}
        wrong = [name for name, value in pairs.items() if not near(ours[name], value)]
        assert wrong == []
    assert np.ptp([o["v_rel_x"] for o in row["objects"]]) > 1  # moving past what stands still


def test_a_capture_gives_what_a_bag_gives(bag: Path, tmp_path: Path) -> None:
    payloads = [packet for data in bag_messages(bag) for _, packet in deserialized(data)[1]]
    capture = write_capture(tmp_path / "radar.pcap", [*payloads, detection_packet([])], 42102)
    for table in ("scan", "detections", "objects"):
        ours, theirs = read_radar(Ars548(capture, table)), read_radar(Ars548(bag, table))
        skipped = ("ts_recv", "topic", "frame_id")
        assert {k: v for k, v in ours.rows[0].items() if k not in skipped} == {
            k: v for k, v in theirs.rows[0].items() if k not in skipped
        }
        assert ours.records == 3
    assert read_radar(Ars548(capture)).rows[1]["ts_recv"] == 7_000_002_000
    assert read_radar(Ars548(capture, port=1)).rows == []


def test_mcap_bags_folders_and_urls_are_read_alike(bag: Path, tmp_path: Path) -> None:
    topic = "/sensing/radar/front_center/nebula_packets"
    with (tmp_path / "radar.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start(profile="ros2", library="test")
        kind = writer.register_schema("nebula_msgs/msg/NebulaPackets", "ros2msg", DEFINITION.encode())
        channel = writer.register_channel(topic, "cdr", kind)
        for i, data in enumerate(bag_messages(bag)):
            writer.add_message(channel, i, data, i)
        writer.finish()
    fsspec.filesystem("memory").pipe("/radar/a.db3", bag.read_bytes())
    wanted = read_radar(Ars548(bag)).rows
    for path in (tmp_path / "radar.mcap", bag.parent, "memory://radar/a.db3"):
        rows = read_radar(Ars548(path, topic=topic)).rows
        assert [{**row, "ts_recv": 0} for row in rows] == [{**row, "ts_recv": 0} for row in wanted]


def test_what_is_marked_as_invalid_is_null(tmp_path: Path) -> None:
    points = [(0.5, 0.1, 10.0, -2.0, -3, flags, 9) for flags in (0, 1, 4, 16, 64)]
    bag = write_bag(tmp_path / "a.db3", [message([detection_packet(points)])])
    got = read_radar(Ars548(bag)).rows[0]["points"]
    assert [[p[name] is None for name in ("x", "y", "z", "vr")] for p in got] == [
        [False, False, False, False],
        [True, True, True, False],
        [True, True, True, False],
        [False, False, True, False],
        [False, False, False, True],
    ]
    assert got[3]["x"] == pytest.approx(10 * math.cos(0.5), rel=1e-6)
    assert [p["flags"] & 0xFF for p in got] == [0, 1, 4, 16, 64]


def test_the_hosts_time_stands_in_for_a_sensor_out_of_step(tmp_path: Path) -> None:
    packets = [detection_packet([], sync=sync) for sync in (1, 2, 3)]
    rows = read_radar(Ars548(write_bag(tmp_path / "a.db3", [message(packets)]))).rows
    assert [row["ts_event"] for row in rows] == [100_000_000_007, 5_001_000_000, 5_002_000_000]
    assert [row["seq"] for row in rows] == [0, 1, 2]


def test_a_sensor_status_is_read_field_by_field(tmp_path: Path) -> None:
    body = struct.pack(">IIB", 7, 100, 1) + bytes([4, 3, 2]) + struct.pack(">fffffB", 1.5, -0.5, 0.25, 0.125, -0.125, 1)
    body += struct.pack(">ffffHBBBBB", 4.5, 1.75, 1.5, 2.75, 300, 1, 60, 10, 1, 0) + bytes(
        [10, 13, 1, 166, 10, 13, 1, 167]
    )
    body += bytes([9, 0, 0, 0, 0, 0, 1, 2, 1, 2, 0, 4])
    packet = struct.pack(">HHI", 0, 380, 76) + body
    assert len(packet) == 84
    row = read_radar(Ars548(write_bag(tmp_path / "a.db3", [message([packet])]), "status")).rows[0]
    assert row["ts_event"] == 100_000_000_007
    wanted = {"sync": 1, "sw_major": 4, "longitudinal": 1.5, "pitch": -0.125, "plug_orientation": 1, "wheelbase": 2.75}
    wanted |= {"maximum_distance": 300, "cycle_time": 60, "ip_0": 0x0A0D01A6, "configuration_counter": 9}
    wanted |= {"radar_status": 1, "voltage_status": 2, "temperature_status": 0, "blockage_status": 4}
    assert {name: row[name] for name in wanted} == wanted


def test_reading_goes_on_behind_every_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [message([detection_packet([(0, 0, i + 1, 0, 0, 0, i)])], first_ns=i) for i in range(9)]
    messages.insert(4, b"\0\1\0\0broken")
    bag = write_bag(tmp_path / "a.db3", messages)
    capture = write_capture(tmp_path / "a.pcap", [detection_packet([], seconds=i) for i in range(5)], 42102)
    monkeypatch.setattr(radar_reader, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(rosbag2_sqlite, "_ROWS", 2)
    for path in (bag, capture):
        whole = read_radar(Ars548(path))
        assert len(whole.rows) + len(whole.bad) == whole.records
        for after, rows, bad in whole.after:
            rest = read_radar(Ars548(path), after)
            assert rest.rows == whole.rows[rows:]
            assert rest.bad == whole.bad[bad:]
    assert len(read_radar(Ars548(bag)).after) > 3


def test_pure_decoding_gives_the_columns_of_the_source(tmp_path: Path) -> None:
    packets = [detection_packet([(0.1, 0.2, 5.0, 1.0, 2, 0, 3)]), detection_packet([])]
    rows = read_radar(Ars548(write_bag(tmp_path / "a.db3", [message(packets)]))).rows
    columns = decode_ars548(packets)
    assert columns["points"].to_pylist() == [row["points"] for row in rows]
    with pytest.raises(ValueError, match="packet 1: it holds something else"):
        decode_ars548([packets[0], b"nothing"])
    with pytest.raises(ValueError, match="35336 bytes, not 35335"):
        decode_ars548([packets[0][:-1]])


def test_a_packet_put_aside_can_be_decoded_again(tmp_path: Path) -> None:
    good = detection_packet([(0.1, 0.2, 5.0, 1.0, 2, 0, 3)])
    spec = Ars548(write_bag(tmp_path / "a.db3", [message([good[:-1], good])]))
    got = read_radar(spec)
    again = spec.retry(got.bad[0])
    assert again is not None
    assert again.bad == [got.bad[0]]
    mended = spec.retry(dataclasses.replace(got.bad[0], data=good))
    assert mended is not None
    row = mended.batches[0].to_pylist()[0]
    assert (row["seq"], row["points"], row["ts_recv"]) == (0, got.rows[0]["points"], None)
    assert spec.retry(dataclasses.replace(got.bad[0], operation="nebula.decode")) is None
    assert spec.retry(dataclasses.replace(got.bad[0], data=detection_packet([], sync=2))) is None


def test_inspect_counts_packets_by_kind(bag: Path) -> None:
    found = inspect_ars548(bag)
    assert found["types"] == {"detections": 1, "objects": 1}
    assert (found["messages"], found["bad"]) == (2, 0)
    assert open_ars548(bag, table="objects") == Ars548(bag, "objects")
    assert is_ars548_packet(detection_packet([]))
    assert not is_ars548_packet(b"\0\0\1\x51" + bytes(9))


def test_topics_are_chosen_by_name(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "a.db3", [message([detection_packet([])])], topics=(TOPIC, "/other"))
    with pytest.raises(FormatError, match="give topic= one of"):
        read_radar(Ars548(bag))
    assert len(read_radar(Ars548(bag, topic=TOPIC)).rows) == 1
    assert read_radar(Ars548(bag, topic="/other")).rows == []
    with pytest.raises(FormatError, match="no topic '/none'"):
        read_radar(Ars548(bag, topic="/none"))


@pytest.mark.parametrize("options", [{"table": "points"}, {"clock": "utc"}, {"port": 70_000}])
def test_wrong_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GraphError):
        Ars548("a.db3", **options)


def test_files_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.db3").write_bytes(b"SQLite format 3\0" + bytes(100))
    with pytest.raises(FormatError, match=r"a\.db3"):
        read_radar(Ars548(tmp_path / "a.db3"))
    (tmp_path / "b.db3").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match=r"b\.db3"):
        read_radar(Ars548(tmp_path / "b.db3"))


def test_a_spec_pickles() -> None:
    spec = Ars548("a.db3", "objects", clock="host")
    assert pickle.loads(pickle.dumps(spec)) == spec
