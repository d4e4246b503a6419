"""DecodeImage against Pillow and OpenCV, a plain numpy bilinear, and bytes that are not what they say."""

from __future__ import annotations

import builtins
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, events, run_operator
from penstock.ops.image import DecodeImage
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, MissingExtraError
from penstock.pipeline.memory import BufferPool

Image = pytest.importorskip("PIL.Image", reason="pillow is the oracle of these tests")
Pixels = np.ndarray[Any, np.dtype[Any]]


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth gradients with edges: compresses like a photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    out = np.empty((height, width, 3), np.float32)
    for c in range(3):
        a, b, shift = rng.uniform((0.01, 0.01, 0), (0.06, 0.06, 6))
        out[..., c] = 127 + 90 * np.sin(a * x + shift) * np.cos(b * y)
    out[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return np.clip(out, 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 92, subsampling: str = "420") -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", subsampling)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def batch_of(images: list[bytes | None], **columns: Any) -> pa.RecordBatch:
    return events([40 * i for i in range(len(images))], data=pa.array(images, pa.large_binary()), **columns)


def decode(spec: DecodeImage, images: list[bytes | None], **columns: Any) -> Pixels:
    result = run_operator(spec, batch_of(images, **columns))
    assert not result.bad, result.bad
    array: Pixels = result.rows[spec.output].combine_chunks().to_numpy_ndarray()
    return array


def naive_bilinear(pixels: Pixels, height: int, width: int) -> Pixels:
    """Half-pixel centres, edges clamped, one pixel at a time, in float64."""
    h, w = pixels.shape[:2]
    out = np.empty((height, width, 3))
    for i in range(height):
        y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
        y0 = int(y)
        y1 = min(y0 + 1, h - 1)
        for j in range(width):
            x = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            x0 = int(x)
            x1 = min(x0 + 1, w - 1)
            top = pixels[y0, x0] * (1 - (x - x0)) + pixels[y0, x1] * (x - x0)
            bottom = pixels[y1, x0] * (1 - (x - x0)) + pixels[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def psnr(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (8, 8), (5, 17), (64, 48), (99, 101)])
def test_without_resize_every_pixel_equals_pillow(size: tuple[int, int], subsampling: str) -> None:
    data = jpeg(picture(*size), 90, subsampling)
    assert np.array_equal(decode(DecodeImage(*size), [data])[0], pillow(data))


def test_without_resize_every_pixel_equals_opencv() -> None:
    cv2 = pytest.importorskip("cv2")
    data = jpeg(picture(90, 160))
    wanted = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode(DecodeImage(90, 160), [data])[0], wanted)


@pytest.mark.parametrize("eighths", [1, 2, 4])
def test_a_scaled_decode_equals_pillow_draft(eighths: int) -> None:
    data = jpeg(picture(160, 240))
    size = 160 * eighths // 8, 240 * eighths // 8
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", size[::-1])
    assert np.array_equal(decode(DecodeImage(*size), [data])[0], np.asarray(image))


@settings(max_examples=80, deadline=None)
@given(
    source=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    target=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    seed=st.integers(0, 5),
)
def test_resize_equals_plain_bilinear(source: tuple[int, int], target: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*source, 3), dtype=np.uint8)
    wanted = naive_bilinear(pixels, *target)
    sized = {"codec": ["raw_rgb8"], "height": [source[0]], "width": [source[1]]}
    whole = decode(DecodeImage(*target), [pixels.tobytes()], **sized)[0]
    assert np.abs(whole - wanted).max() <= 0.501
    planar = decode(DecodeImage(*target, dtype="float32", layout="chw"), [pixels.tobytes()], **sized)[0]
    np.testing.assert_allclose(planar, wanted.transpose(2, 0, 1) / 255, atol=2e-6)


@pytest.mark.parametrize(
    ("source", "target"), [((540, 960), (224, 224)), ((900, 1600), (224, 224)), ((300, 400), (260, 390))]
)
def test_scaled_decoding_stays_close_to_decoding_in_full(source: tuple[int, int], target: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    data = jpeg(picture(*source))
    got = decode(DecodeImage(*target), [data])[0]
    full = pillow(data)
    area = cv2.resize(full, target[::-1], interpolation=cv2.INTER_AREA)
    linear = cv2.resize(full, target[::-1], interpolation=cv2.INTER_LINEAR)
    assert psnr(got, area) > 30
    assert psnr(got, linear) > 30


def test_real_frames_stay_close_to_decoding_in_full(recordings: Callable[[str], Path]) -> None:
    cv2 = pytest.importorskip("cv2")
    files = sorted(recordings("driving/dashcam_h264").glob("*.jpg"))
    got = decode(DecodeImage(224, 224), [file.read_bytes() for file in files])
    for row, file in zip(got, files, strict=True):
        area = cv2.resize(pillow(file.read_bytes()), (224, 224), interpolation=cv2.INTER_AREA)
        assert psnr(row, area) > 30


def test_a_real_recording_decodes_to_the_last_frame(recordings: Callable[[str], Path]) -> None:
    from mcap.reader import make_reader

    frames = []
    with (recordings("driving/derived_drive/drive_mcap") / "drive_mcap.mcap").open("rb") as file:
        for schema, _, message in make_reader(file).iter_messages():
            if schema is not None and schema.name.endswith("CompressedImage"):
                frames.append(message.data[message.data.find(b"\xff\xd8\xff") :])
    result = run_operator(DecodeImage(224, 224), batch_of(frames), sizes=50, parallelism=2)
    assert (result.rows.num_rows, len(result.bad)) == (221, 0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_layouts_hold_the_same_values(dtype: Any) -> None:
    images: list[bytes | None] = [jpeg(picture(60, 80, seed)) for seed in range(3)]
    for size in ((60, 80), (33, 44), (15, 20)):
        packed = decode(DecodeImage(*size, dtype=dtype, layout="hwc"), images)
        planar = decode(DecodeImage(*size, dtype=dtype, layout="chw"), images)
        assert np.array_equal(packed.transpose(0, 3, 1, 2), planar)


@pytest.mark.parametrize("size", [(60, 80), (33, 44)])
def test_normalised_values_follow_the_formula(size: tuple[int, int]) -> None:
    images: list[bytes | None] = [jpeg(picture(60, 80))]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    plain = decode(DecodeImage(*size, dtype="float32"), images).astype(np.float64)
    got = decode(DecodeImage(*size, dtype="float32", mean=mean, std=std), images)
    np.testing.assert_allclose(got, (plain - mean) / std, atol=1e-5)
    assert np.abs(plain * 255 - decode(DecodeImage(*size), images)).max() <= 0.501


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seeds=st.lists(st.integers(0, 3), max_size=6))
def test_rows_do_not_depend_on_batches(data: st.DataObject, seeds: list[int]) -> None:
    images: list[bytes | None] = [jpeg(picture(48, 64, seed)) if seed else b"\xff\xd8 broken" for seed in seeds]
    assert_boundaries_do_not_matter(DecodeImage(20, 20), batch_of(images), data=data, parallelism=2)


def test_threads_change_nothing_and_nothing_is_kept() -> None:
    images = [jpeg(picture(48 + seed % 5, 64, seed)) for seed in range(40)]
    images[7] = images[7][:300]
    spec = DecodeImage(30, 30, dtype="float32", layout="chw")
    serial, parallel = (run_operator(spec, batch_of(images), parallelism=n) for n in (1, 4))
    assert serial.digest == parallel.digest
    assert serial.bad == parallel.bad
    assert_restorable(spec, batch_of(images[:6]), sizes=2)


def test_slices_read_their_own_rows() -> None:
    images: list[bytes | None] = [jpeg(picture(32, 32, seed)) for seed in range(6)]
    images[1] = None
    batch = batch_of(images, codec=pa.array(["jpeg"] * 6).dictionary_encode())
    spec = DecodeImage(16, 16)
    part = run_operator(spec, batch.slice(3, 2)).rows
    assert part["image"].to_pylist() == run_operator(spec, batch).rows["image"][2:4].to_pylist()
    assert part["seq"].to_pylist() == [3, 4]


def bad_images() -> dict[str, tuple[bytes | None, str]]:
    good = jpeg(picture(64, 64))
    huge = bytearray(good)
    at = huge.find(b"\xff\xc0")
    huge[at + 5 : at + 9] = b"\xff\x00\xff\x00"
    zero = bytearray(good)
    zero[at + 5 : at + 7] = b"\x00\x00"
    colour = Image.fromarray(picture(64, 64)).convert("CMYK")
    sos = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    progressive = saved(Image.fromarray(picture(64, 64)), "jpeg", progressive=True)
    return {
        "null": (None, "null"),
        "empty": (b"", "neither JPEG nor PNG"),
        "text": (b"hello, this is no picture", "neither JPEG nor PNG"),
        "header only": (good[:20], "header"),
        "cut in its scan": (good[:-30], "Premature end"),
        "without its end": (good[:-2], "Premature end"),
        "no dimensions": (bytes(zero), "JPEG header"),
        "dimension bomb": (bytes(huge), "65280x65280 pixels, more than max_pixels"),
        "cmyk": (saved(colour, "jpeg"), "only grey, YCbCr and RGB"),
        "scan bomb": (progressive[:-2] + sos * 200 + b"\xff\xd9", "scans"),
        "png cut": (saved(Image.fromarray(picture(64, 64)), "png")[:500], "PNG"),
        "png of 16 bits": (saved(Image.fromarray(np.zeros((4, 4), np.uint16)), "png"), "only 8 bits"),
    }


@pytest.mark.parametrize("name", list(bad_images()))
def test_a_bad_image_leaves_alone(name: str) -> None:
    bad, told = bad_images()[name]
    good = [jpeg(picture(32, 32, seed)) for seed in range(3)]
    result = run_operator(DecodeImage(16, 16), batch_of([good[0], bad, good[1], good[2]], topic=["/cam"] * 4))
    (record,) = result.bad
    assert told in record.error
    assert (record.operation, record.seq, record.data) == ("image.decode", 1, bad or b"")
    assert "/cam" in record.place and "seq 1" in record.place
    assert result.rows["seq"].to_pylist() == [0, 2, 3]
    assert np.array_equal(
        result.rows["image"].combine_chunks().to_numpy_ndarray(), decode(DecodeImage(16, 16), list(good))
    )


def test_a_batch_of_bad_images_gives_no_rows() -> None:
    result = run_operator(DecodeImage(16, 16), batch_of([b"a", b"b", None]))
    assert (result.rows.num_rows, [record.seq for record in result.bad]) == (0, [0, 1, 2])


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 100), progressive=st.booleans(), data=st.data())
def test_any_truncation_is_noticed(cut: int, progressive: bool, data: st.DataObject) -> None:
    whole = saved(Image.fromarray(picture(40, 40)), "jpeg", progressive=progressive)
    size = max(0, len(whole) - 1 - data.draw(st.integers(0, len(whole) - 1) if cut > 30 else st.just(cut)))
    result = run_operator(DecodeImage(16, 16), batch_of([whole[:size]]))
    assert (result.rows.num_rows, len(result.bad)) == (0, 1)


@settings(max_examples=200, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8), data=st.data())
def test_hostile_bytes_end_as_a_row_or_a_record(changes: list[tuple[int, int]], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["jpeg", "png"]))
    broken = bytearray(saved(Image.fromarray(picture(40, 40)), kind))
    for at, value in changes:
        broken[at % len(broken)] = value
    result = run_operator(DecodeImage(16, 16, max_pixels=1_000_000), batch_of([bytes(broken)]))
    assert result.rows.num_rows + len(result.bad) == 1


def test_grey_progressive_and_png_images_are_decoded() -> None:
    pixels = picture(40, 56)
    image = Image.fromarray(pixels)
    for data in (
        saved(image.convert("L"), "jpeg"),
        saved(image, "jpeg", progressive=True),
        saved(image, "png"),
        saved(image.convert("L"), "png"),
        saved(image.quantize(32), "png"),
        saved(image.convert("RGBA"), "png"),
    ):
        assert np.array_equal(decode(DecodeImage(40, 56), [data])[0], pillow(data))


def test_orientation_tags_do_not_turn_the_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(picture(20, 40)), "jpeg", exif=exif)
    assert np.array_equal(decode(DecodeImage(20, 40), [data])[0], pillow(data))


def test_raw_pixels_need_their_size() -> None:
    pixels = picture(6, 8)
    grey = np.ascontiguousarray(pixels[..., 0])
    columns = {"height": [6, 6, 6], "width": [8, 8, 8], "codec": ["raw_rgb8", "raw_bgr8", "raw_mono8"]}
    raw: list[bytes | None] = [pixels.tobytes(), pixels[..., ::-1].tobytes(), grey.tobytes()]
    got = decode(DecodeImage(6, 8), raw, **columns)
    assert np.array_equal(got[0], pixels) and np.array_equal(got[1], pixels)
    assert np.array_equal(got[2], np.repeat(grey[..., None], 3, 2))
    for wrong in ({"codec": ["raw_rgb8"]}, {"codec": ["raw_rgb8"], "height": [6], "width": [9]}):
        assert len(run_operator(DecodeImage(6, 8), batch_of(raw[:1], **wrong)).bad) == 1


def test_an_unknown_codec_is_told_by_the_first_bytes() -> None:
    pixels = picture(8, 8)
    data = [saved(Image.fromarray(pixels), "png"), jpeg(pixels)]
    got = decode(DecodeImage(8, 8), list(data), codec=["unknown", None])
    assert np.array_equal(got[0], pixels) and np.array_equal(got[1], pillow(data[1]))


def test_a_video_packet_is_not_an_image() -> None:
    (record,) = run_operator(DecodeImage(6, 8), batch_of([b"\0\0\0\1"], codec=["h264"])).bad
    assert "h264" in record.error


def test_png_without_pillow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "PIL")
    data = saved(Image.fromarray(picture(8, 8)), "png")
    (record,) = run_operator(DecodeImage(8, 8), batch_of([data])).bad
    assert "pip install pillow" in record.error


def test_dali_decodes_the_same_picture_and_loses_only_the_bad_row() -> None:
    pytest.importorskip("nvidia.dali")
    images: list[bytes | None] = [jpeg(picture(80, 120, seed)) for seed in range(5)]
    for options in ({}, {"layout": "chw"}, {"dtype": "float32", "layout": "chw", "std": (0.5, 0.5, 0.5)}):
        spec = DecodeImage(40, 60, **options)  # type: ignore[arg-type]
        by_dali = DecodeImage(40, 60, backend="dali", **options)  # type: ignore[arg-type]
        scale = 127.5 if "std" in options else 1
        assert psnr(decode(by_dali, images) * scale, decode(spec, images) * scale) > 30
    broken = [images[0], images[1][: len(images[1]) // 2], *images[2:]]  # type: ignore[index]
    result = run_operator(DecodeImage(40, 60, backend="dali"), batch_of(broken))
    assert result.rows["seq"].to_pylist() == [0, 2, 3, 4]
    assert [record.seq for record in result.bad] == [1]


def test_dali_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "nvidia")
    with pytest.raises(MissingExtraError, match="pip install"):
        DecodeImage(8, 8, backend="dali").open(Context("x"), batch_of([]).schema)


def test_memory_given_by_the_runner_is_written_in_place() -> None:
    pool, asked = BufferPool(), []

    def allocate(name: str, kind: pa.DataType, rows: int) -> Any:
        asked.append((name, kind, rows, pool.take(rows * 16 * 16 * 3)))
        return asked[-1][3]

    context = Context("decode")
    context.allocate = allocate
    batch = batch_of([jpeg(picture(32, 32, seed)) for seed in range(3)])
    spec = DecodeImage(16, 16)
    (out,) = spec.open(context, batch.schema).process(batch)
    ((name, kind, rows, lease),) = asked
    assert (name, kind, rows) == ("image", spec.tensor, 3)
    assert np.array_equal(lease.array(np.uint8, (3, 16, 16, 3)), out["image"].to_numpy_ndarray())
    assert out["image"].storage.values.buffers()[1].address == lease.array(np.uint8, 1).ctypes.data
    assert (context.pool.leased_bytes, context.metrics.bytes_copied) == (0, 0)


def test_memory_of_a_batch_that_is_gone_is_used_again() -> None:
    context = Context("decode")
    batch = batch_of([jpeg(picture(32, 32, seed)) for seed in range(3)])
    operator = DecodeImage(16, 16).open(context, batch.schema)
    for _ in range(5):
        operator.process(batch)
    assert context.pool.fresh_bytes == context.pool.idle_bytes


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DecodeImage(0, 4), "positive size"),
        (lambda: DecodeImage(4, 4, dtype="int8"), "dtype"),
        (lambda: DecodeImage(4, 4, layout="nchw"), "layout"),
        (lambda: DecodeImage(4, 4, backend="gpu"), "backend"),
        (lambda: DecodeImage(4, 4, mean=(0, 0, 0)), "float32"),
        (lambda: DecodeImage(4, 4, dtype="float32", std=(1, 0, 1)), "std"),
        (lambda: DecodeImage(4, 4, dtype="float32", mean=(1, 2)), "mean"),
        (lambda: DecodeImage(4, 4, max_pixels=0), "max_pixels"),
        (lambda: DecodeImage(4, 4, column="no").output_schema(batch_of([]).schema), "no column 'no'"),
        (lambda: DecodeImage(4, 4, column="seq").output_schema(batch_of([]).schema), "does not hold encoded images"),
        (lambda: DecodeImage(4, 4, codec="seq").output_schema(batch_of([]).schema), "does not hold codec names"),
        (lambda: DecodeImage(4, 4, output="seq").output_schema(batch_of([]).schema), "already a column 'seq'"),
    ],
)
def test_what_does_not_fit_is_said_when_built(make: Any, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        make()


def test_the_spec_pickles_and_says_its_schema() -> None:
    spec = DecodeImage(4, 6, dtype="float32", layout="chw", mean=[0, 0, 0], drop_encoded=False)
    assert pickle.loads(pickle.dumps(spec)) == spec
    schema = spec.output_schema(batch_of([], topic=pa.array([], pa.utf8())).schema)
    assert schema.names == ["ts_event", "ts_recv", "seq", "data", "topic", "image"]
    assert schema.field("image").type == pa.fixed_shape_tensor(pa.float32(), [3, 4, 6])
    assert DecodeImage(4, 6, output="data").output_schema(batch_of([]).schema).names[-1] == "data"


def _without(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = builtins.__import__

    def blocked(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", blocked)
