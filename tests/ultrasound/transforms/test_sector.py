from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Resized, SpatialPadd
from PIL import Image, ImageDraw
from scipy import ndimage

from monai_fetalkd.ultrasound.frames.sector import Sector, crop_to_sector, find_sector
from monai_fetalkd.ultrasound.transforms.crop import CropSectord, SectorMaskd

SIZES = [(661, 959), (400, 500), (224, 224), (720, 540)]


@dataclass
class Scan:
    pixels: np.ndarray
    sector: np.ndarray  # the truth
    fluid: np.ndarray  # black, inside of the sector
    chrome: np.ndarray  # drawn around the sector


def fan(size, centre=0.5, half_angle=0.6, nearest=0.2, background=0, noise=0):
    """A curved probe's sector, with fluid and a shadow in it and the chrome of a machine around it."""
    height, width = size
    y, x = np.mgrid[:height, :width] + 0.5
    x, y = x - centre * width, y + 0.1 * height
    angle, radius = np.arctan2(x, y), np.hypot(x, y) / height
    sector = (np.abs(angle) < half_angle) & (radius > nearest) & (radius < 1.03)
    fluid = np.hypot(x / width + 0.02, y / height - 0.65) < 0.12
    shadow = (np.abs(angle - 0.2) < 0.05) & (radius > 0.5)
    tissue = np.where(fluid | shadow, 2, speckle(size))
    pixels = np.where(sector, tissue, background) + np.random.default_rng(2).normal(0, 1, size) * noise
    chrome = draw_chrome(size) * ~ndimage.binary_dilation(sector, iterations=max(size) // 60)
    return Scan(np.where(chrome > 0, chrome, pixels).clip(0, 255).astype(np.uint8), sector, fluid, chrome > 0)


def speckle(size, low=15, high=160):
    """Blobs of three pixels, nowhere black."""
    coarse = np.random.default_rng(1).uniform(low, high, [-(-side // 3) for side in size]).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)).clip(low, high)


def draw_chrome(size):
    height, width = size
    image = Image.new("L", (width, height))
    draw = ImageDraw.Draw(image)
    for line in range(6):
        draw.text((0.85 * width, (0.02 + 0.04 * line) * height), "Gn -2 FF3", fill=220, font_size=0.025 * height)
    draw.rectangle([0.01 * width, 0.02 * height, 0.05 * width, 0.08 * height], fill=200)  # a logo
    draw.rectangle([0.8 * width, 0.8 * height, 0.99 * width, 0.98 * height], fill=90)  # a table of measurements
    for tick in range(1, 10):
        draw.line([0.005 * width, 0.1 * tick * height, 0.02 * width, 0.1 * tick * height], fill=255)  # a ruler
    return np.asarray(image)


def in_frame(sector: Sector, shape):
    mask = np.zeros(shape, dtype=bool)
    top, left, bottom, right = sector.box
    mask[top:bottom, left:right] = sector.mask
    return mask


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def jpeg(pixels, quality=90):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"centre": 0.45, "half_angle": 0.5},
        {"half_angle": 0.7, "nearest": 0.35},
        {"nearest": 0.12, "half_angle": 0.4},
        {"background": 28},
        {"noise": 2},
    ],
)
def test_the_sector_of_a_curved_probe_is_found_amid_the_chrome(size, shape):
    scan = fan(size, **shape)
    assert overlap(in_frame(find_sector(scan.pixels), size), scan.sector) > 0.97


@pytest.mark.parametrize("size", SIZES)
def test_nothing_of_the_chrome_is_left_and_the_fluid_stays(size):
    scan = fan(size)
    mask = in_frame(find_sector(scan.pixels), size)
    assert not (mask & scan.chrome).any()
    assert mask[scan.fluid].all()


@pytest.mark.parametrize(
    ("spoil", "least"),
    [
        pytest.param(lambda pixels: pixels[:, ::-1].copy(), 0.97, id="flipped"),
        pytest.param(jpeg, 0.95, id="jpeg"),  # it blurs the edge
        pytest.param(lambda pixels: pixels.astype(np.float32), 0.97, id="float"),
    ],
)
def test_what_happens_to_frames_does_not_move_the_sector(spoil, least):
    scan = fan((661, 959))
    truth = spoil(scan.sector.astype(np.uint8) * 255) > 127
    assert overlap(in_frame(find_sector(spoil(scan.pixels)), truth.shape), truth) > least


def test_the_black_above_a_curved_probe_is_outside():
    scan = fan((661, 959), nearest=0.35)
    above = np.zeros_like(scan.sector)
    above[:, 470:490] = ~scan.sector[:, 470:490] & (np.arange(661) < 300)[:, None]
    mask = in_frame(find_sector(scan.pixels), scan.sector.shape)
    assert (mask & above).sum() < 0.1 * (above & (np.arange(661) >= 100)[:, None]).sum()


def test_a_shadow_under_the_probe_is_no_near_field():
    pixels = np.zeros((400, 500), np.float32)
    pixels[20:380, 50:450] = speckle((360, 400))
    pixels[20:200, 50:250] = 0  # the left half of the probe has no contact
    mask = in_frame(find_sector(pixels), pixels.shape)
    assert mask[pixels > 0].mean() > 0.995


def test_the_picture_of_a_linear_probe_is_its_rectangle():
    pixels = draw_chrome((480, 692)).astype(np.float32)
    pixels[40:440, 120:460] = speckle((400, 340))
    sector = find_sector(pixels)
    assert np.abs(np.subtract(sector.box, (40, 120, 440, 460))).max() <= 3
    assert sector.mask.mean() > 0.99


@pytest.mark.parametrize("size", [(661, 959), (400, 450), (64, 64), (16, 200)])
def test_a_tight_crop_is_left_whole(size):
    sector = find_sector(speckle(size))
    assert sector.box == (0, 0, *size)
    assert sector.mask.mean() > 0.99


@pytest.mark.parametrize("size", [(16, 16), (17, 400), (300, 16), (661, 959)])
@pytest.mark.parametrize("level", [0, 40, 255])
def test_a_frame_without_a_sector_is_left_whole(size, level):
    pixels = np.full(size, level, np.uint8)
    pixels[2:5, 3:9] = 200
    sector = find_sector(pixels)
    assert sector.box == (0, 0, *size)
    assert sector.mask.all()


@pytest.mark.parametrize("seed", range(20))
def test_any_frame_has_a_sector_within_it(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(16, 300, 2)
    pixels = rng.uniform(0, 255, (height, width)) * (rng.uniform(size=(height, width)) < rng.uniform())
    top, left, bottom, right = find_sector(pixels).box
    assert 0 <= top < bottom <= height
    assert 0 <= left < right <= width
    assert find_sector(pixels).mask.shape == (bottom - top, right - left)


@pytest.mark.parametrize("shape", [(1, 20, 20), (400,), (1, 20)])
def test_what_is_no_frame_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(H, W\), not"):
        find_sector(np.zeros(shape))


def test_crop_keeps_the_sector_and_blanks_the_rest():
    scan = fan((661, 959))
    frame = torch.from_numpy(scan.pixels)[None]
    cropped = CropSectord("image")({"image": frame, "label": 3})
    sector = find_sector(scan.pixels)
    top, left, bottom, right = sector.box
    assert cropped["label"] == 3
    assert cropped["image"].dtype == torch.float32
    assert cropped["image"].shape == (1, bottom - top, right - left)
    assert torch.equal(cropped["image"][0], frame[0, top:bottom, left:right] * torch.from_numpy(sector.mask))
    assert not isinstance(cropped["image"], MetaTensor)
    assert np.array_equal(frame[0].numpy(), scan.pixels)


@pytest.mark.parametrize("shape", [(16, 5000), (5000, 16), (16, 600), (31, 3000), (16, 16)])
def test_a_frame_may_be_very_long(shape):
    pixels = np.random.default_rng(0).uniform(40, 200, shape).astype(np.float32)
    np.testing.assert_array_equal(crop_to_sector(pixels), pixels)


def test_crop_takes_the_region_of_the_file_first():
    frame = torch.zeros(1, 300, 400)
    frame[0, 50:250, 100:300] = torch.from_numpy(speckle((200, 200)))
    frame[0, 50:250, 310:400] = torch.from_numpy(speckle((200, 90)))  # a second picture beside it
    meta = {"filename_or_obj": "a.dcm", "region": (40, 90, 260, 305)}
    cropped = CropSectord("image")({"image": MetaTensor(frame, meta=meta)})["image"]
    assert cropped.meta["filename_or_obj"] == "a.dcm"
    assert "region" not in cropped.meta
    assert meta["region"] == (40, 90, 260, 305)
    assert torch.equal(cropped.as_tensor(), frame[:, 50:250, 100:300])


def test_the_sector_mask_fits_the_letterboxed_frame():
    scan = fan((661, 959))
    item = Compose(
        [
            CropSectord("image"),
            Resized("image", spatial_size=224, size_mode="longest", mode="area"),
            SpatialPadd("image", spatial_size=(224, 224)),
            SectorMaskd("image"),
        ]
    )({"image": MetaTensor(torch.from_numpy(scan.pixels)[None]), "label": 0})
    truth = in_frame(find_sector(scan.pixels), scan.pixels.shape)
    letterboxed = Compose(
        [
            CropSectord("image"),
            Resized("image", spatial_size=224, size_mode="longest", mode="area"),
            SpatialPadd("image", spatial_size=(224, 224)),
        ]
    )({"image": torch.from_numpy(truth * speckle(truth.shape, 100, 200))[None]})["image"]
    assert item["sector"].shape == (1, 224, 224)
    assert item["sector"].dtype == torch.float32
    assert not isinstance(item["sector"], MetaTensor)
    assert set(item["sector"].unique().tolist()) == {0.0, 1.0}
    assert overlap(item["sector"].numpy() > 0, letterboxed.numpy() > 50) > 0.97


@pytest.mark.parametrize("transform", [CropSectord("image"), SectorMaskd("image")])
def test_more_than_one_channel_is_refused(transform):
    with pytest.raises(ValueError, match=r"\(1, H, W\), but 'image' is \(3, 20, 20\)"):
        transform({"image": torch.zeros(3, 20, 20)})


def test_a_missing_frame_is_skipped_on_request():
    assert CropSectord("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}
    assert SectorMaskd("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}


def test_one_mask_is_for_one_frame():
    with pytest.raises(ValueError, match="pass a single key"):
        SectorMaskd(["image", "other"])


@pytest.fixture(scope="module")
def real_frames(shared_dir):
    with (shared_dir / "data" / "planes.csv").open(newline="") as stream:
        paths = sorted(row["image"] for row in csv.DictReader(stream))[::8]
    return [np.asarray(Image.open(shared_dir / "data" / path).convert("L")) for path in paths]


def test_real_frames_keep_their_tissue(real_frames):
    kept = []
    for pixels in real_frames:
        mask = in_frame(find_sector(pixels), pixels.shape)
        kept.append(mask[pixels > 40].mean())
    assert np.median(kept) > 0.99
    assert np.quantile(kept, 0.1) > 0.95  # the rest of what is bright is text; some frames are full of it


def test_a_blanked_real_frame_has_the_same_sector(real_frames):
    overlaps = []
    for pixels in real_frames:
        sector = find_sector(pixels)
        top, left, bottom, right = sector.box
        again = find_sector(pixels[top:bottom, left:right] * sector.mask)
        overlaps.append(overlap(in_frame(again, sector.mask.shape), sector.mask))
    assert np.quantile(overlaps, 0.05) > 0.97
    assert min(overlaps) > 0.9
