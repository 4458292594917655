from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier

from monai_fetalkd.ultrasound.data import load_datalist
from monai_fetalkd.ultrasound.data.phantom import PLANE_NAMES, Patient, make_phantom, phantom_frame
from monai_fetalkd.ultrasound.data.phantom.frames import phantom_scene
from monai_fetalkd.ultrasound.data.phantom.imaging import Scanner, beam_points, compress, receive, scan_convert
from monai_fetalkd.ultrasound.data.phantom.scene import AMNIOTIC_FLUID, BONE, SOFT_TISSUE, Scene

PLANES = range(len(PLANE_NAMES))
QUIET = Scanner(noise=-200.0, clutter=-200.0)  # neither electronic noise nor side lobes
TINY = {"train": 12, "val": 6, "test": 6, "size": 32}


def uniform_scene(scanner: Scanner, size: int = 96) -> Scene:
    return Scene(*beam_points(scanner, size), SOFT_TISSUE)


def echoes(scene: Scene, scanner: Scanner, seed: int = 0) -> np.ndarray:
    return receive(scene, scanner, np.random.default_rng(seed))


def frames_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return Path(make_phantom(tmp_path_factory.mktemp("data") / "phantom", **TINY))


class TestFrame:
    @pytest.mark.parametrize("plane", PLANES)
    def test_same_seed_gives_the_same_pixels(self, plane):
        np.testing.assert_array_equal(phantom_frame(plane, 7), phantom_frame(plane, np.random.default_rng(7)))

    @pytest.mark.parametrize("plane", PLANES)
    def test_another_seed_gives_another_frame(self, plane):
        assert (phantom_frame(plane, 7) != phantom_frame(plane, 8)).mean() > 0.3

    @pytest.mark.parametrize("size", [32, 64, 97])
    def test_is_a_square_of_grey_levels(self, size):
        frame = phantom_frame(0, 0, size)
        assert frame.shape == (size, size)
        assert frame.dtype == np.uint8
        assert frame.max() > 100

    @pytest.mark.parametrize("plane", [-1, 6])
    def test_unknown_plane(self, plane):
        with pytest.raises(ValueError, match=f"plane is {plane}, but the planes are 0 to 5: Fetal abdomen"):
            phantom_frame(plane, 0)

    def test_too_small(self):
        with pytest.raises(ValueError, match="size is 8"):
            phantom_frame(0, 0, size=8)

    def test_brightness_does_not_give_the_plane_away(self):
        rng = np.random.default_rng(0)
        labels = np.tile(PLANES, 60)
        frames = np.stack([phantom_frame(plane, rng, size=32) for plane in labels])
        brightness = np.stack([frames.mean((1, 2)), frames.std((1, 2))], axis=1)
        accuracy = cross_val_score(DecisionTreeClassifier(max_depth=3, random_state=0), brightness, labels, cv=5).mean()
        assert accuracy < 0.35  # chance is 0.17

    @pytest.mark.parametrize(("scale", "diameter"), [("head", 47 / 0.79), ("trunk", 150 / np.pi), ("femur", 33)])
    def test_sizes_at_twenty_weeks_are_those_of_the_growth_charts(self, scale, diameter):
        patient = replace(Patient.draw(np.random.default_rng(0)), age=20)
        assert 2 * patient.length(scale) == pytest.approx(diameter)
        assert replace(patient, age=30).length(scale) > patient.length(scale)

    def test_frames_of_a_patient_share_probe_and_settings(self):
        patient = Patient.draw(np.random.default_rng(0))
        scanners = [phantom_scene(plane, np.random.default_rng(plane), 32, patient)[1] for plane in PLANES]
        assert {(s.frequency, s.radius, s.sector, s.dynamic_range) for s in scanners} == {
            (s.frequency, s.radius, s.sector, s.dynamic_range) for s in [patient.scanner]
        }


class TestImaging:
    def test_sector_lies_on_black(self):
        scanner = Scanner(radius=40.0, sector=60.0, depth=80.0)
        frame = scan_convert(np.ones((96, 64)), scanner, 64)
        height = 120.0 - 40.0 * np.cos(np.radians(30.0))
        x, z = np.meshgrid((np.arange(64) - 31.5) * height / 64, 120.0 - height + (np.arange(64) + 0.5) * height / 64)
        angle, distance = np.degrees(np.arctan2(x, z)), np.hypot(x, z)
        inside = (np.abs(angle) < 29) & (distance > 42) & (distance < 118)
        outside = (np.abs(angle) > 31) | (distance < 38) | (distance > 122)
        assert (frame[inside] == 255).all()
        assert (frame[outside] == 0).all()

    def test_speckle_is_fully_developed(self):
        # a Rayleigh envelope has a mean of 1.91 standard deviations
        envelope = echoes(uniform_scene(QUIET, 256), QUIET)[40:-40]
        assert envelope.mean() / envelope.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.05)

    @pytest.mark.parametrize("frequency", [2.5, 5.0])
    def test_soft_tissue_attenuates_half_a_decibel_per_centimetre_and_megahertz(self, frequency):
        scanner = replace(QUIET, frequency=frequency, time_gain=0.0)
        level = 20 * np.log10(echoes(uniform_scene(scanner), scanner)).mean(axis=1)[10:-10]
        depth = np.linspace(0.0, scanner.depth / 10, 144)[10:-10]
        assert np.polyfit(depth, level, 1)[0] == pytest.approx(-2 * 0.5 * frequency, rel=0.05)  # there and back

    def test_time_gain_evens_out_soft_tissue(self):
        scanner = replace(QUIET, time_gain=1.0)
        level = 20 * np.log10(echoes(uniform_scene(scanner), scanner)).mean(axis=1)
        assert level[20:60].mean() == pytest.approx(level[-60:-20].mean(), abs=1.0)

    def test_bone_casts_a_shadow(self):
        scene = uniform_scene(QUIET)
        bone = scene.body((0.0, 40.0), 10.0)
        bone.paint(bone.stroke([(-1, 0), (1, 0)], 0.25) < 1, BONE)
        below = echoes(scene, QUIET)[80:110]
        assert below[:, 44:52].mean() < 0.05 * below[:, :10].mean()

    def test_fluid_is_dark_and_brightens_what_lies_behind(self):
        scene = uniform_scene(QUIET)
        scene.paint(scene.body((0.0, 40.0), 15.0).ellipse((0, 0), (1, 1)) < 1, AMNIOTIC_FLUID)
        envelope = echoes(scene, QUIET)
        assert envelope[45:60, 44:52].mean() < 0.1 * envelope[45:60, :10].mean()
        assert envelope[90:120, 44:52].mean() > 2 * envelope[90:120, :10].mean()

    def test_interfaces_show_across_the_beam_and_drop_out_along_it(self):
        across, along = uniform_scene(QUIET), uniform_scene(QUIET)
        for scene, end in ((across, (1, 0)), (along, (0, 1))):
            line = scene.body((0.0, 50.0), 20.0)
            line.paint(line.stroke([(0, 0), end], 0.05) < 1, SOFT_TISSUE._replace(impedance=BONE.impedance))
        assert echoes(across, QUIET)[60:70, 48:60].mean() > 2 * echoes(along, QUIET)[60:90, 48].mean()

    def test_the_beam_widens_with_depth(self):
        widths = []
        for depth in (20.0, 80.0):
            scene = Scene(*beam_points(QUIET, 192), AMNIOTIC_FLUID)
            scene.attenuation[:] = 0.0
            scene.paint(np.hypot(scene.x, scene.z - depth) < 1.0, BONE._replace(attenuation=0.0))
            envelope = echoes(scene, QUIET)
            profile = envelope[np.argmax(envelope.max(axis=1))]
            widths.append((profile > profile.max() / 2).sum() * np.radians(QUIET.sector / 191) * (QUIET.radius + depth))
        assert widths[1] > 1.3 * widths[0]

    def test_half_the_gain_darkens_the_frame(self):
        envelope = echoes(uniform_scene(QUIET), QUIET)
        assert compress(envelope, replace(QUIET, gain=-6.0)).mean() == pytest.approx(
            compress(envelope, QUIET).mean() - 6.0 / QUIET.dynamic_range, abs=0.01
        )

    def test_partial_volume_blends_tissues(self):
        scene = uniform_scene(QUIET)
        scene.paint(scene.z > 50, AMNIOTIC_FLUID, opacity=0.5)
        assert scene.backscatter.min() == pytest.approx((SOFT_TISSUE.backscatter + AMNIOTIC_FLUID.backscatter) / 2)


class TestAnatomy:
    def test_it_is_dark_below_the_femoral_shaft(self):
        below, beside = [], []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            scene, scanner = phantom_scene(2, rng)
            grey = compress(receive(scene, scanner, rng), scanner)
            shaft = scene.attenuation > 5.0
            deep = slice(np.flatnonzero(shaft.any(axis=1)).max() + 5, None)
            shadowed = shaft.sum(axis=0) > 0
            if shadowed.all() or len(grey[deep]) == 0:
                continue  # the shaft leaves nothing beside it
            below.append(grey[deep][:, shadowed].mean())
            beside.append(grey[deep][:, ~shadowed].mean())
        assert len(below) >= 6
        assert np.mean(below) < 0.5 * np.mean(beside)

    @pytest.mark.parametrize("plane", PLANES)
    def test_fluid_is_darker_than_tissue(self, plane):
        differences = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            scene, scanner = phantom_scene(plane, rng)
            grey = compress(receive(scene, scanner, rng), scanner)
            fluid, tissue = scene.attenuation < 0.02, np.isclose(scene.attenuation, SOFT_TISSUE.attenuation)
            if fluid.any():
                differences.append(grey[tissue].mean() - grey[fluid].mean())
        assert np.mean(differences) > 0.1


class TestMakePhantom:
    def test_is_a_monai_datalist(self, folder):
        for split, count in (("training", 12), ("validation", 6), ("testing", 6)):
            rows = load_decathlon_datalist(str(folder / "datalist.json"), data_list_key=split)
            assert [row["label"] for row in rows] == list(PLANES) * (count // 6)
            assert all(Image.open(row["image"]).size == (32, 32) for row in rows)
            assert rows == load_datalist(folder, PLANE_NAMES).section(split)

    def test_says_that_it_is_synthetic(self, folder):
        content = json.loads((folder / "datalist.json").read_text())
        assert "synthetic" in content["description"]
        assert "not clinical" in content["description"]
        assert list(content["labels"].values()) == list(PLANE_NAMES)

    def test_every_patient_shows_every_plane_in_one_split(self, folder):
        content = json.loads((folder / "datalist.json").read_text())
        groups = {split: {row["group"] for row in content[split]} for split in ("training", "validation", "testing")}
        assert [len(patients) for patients in groups.values()] == [2, 1, 1]
        assert len(set.union(*groups.values())) == 4

    def test_same_seed_writes_the_same_frames(self, folder, tmp_path):
        again = Path(make_phantom(tmp_path, **TINY))
        assert frames_of(again) == frames_of(folder)

    def test_another_seed_writes_others(self, folder, tmp_path):
        other = frames_of(Path(make_phantom(tmp_path, **TINY, seed=1)))
        assert other.keys() == frames_of(folder).keys()
        assert not set(other.values()) & set(frames_of(folder).values())

    def test_more_training_frames_leave_the_others_as_they_are(self, folder, tmp_path):
        larger = frames_of(Path(make_phantom(tmp_path, **{**TINY, "train": 18})))
        assert frames_of(folder).items() <= larger.items()

    def test_the_same_phantom_is_kept(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        assert make_phantom(folder, **TINY) == str(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    def test_another_phantom_is_refused(self, folder):
        before = frames_of(folder)
        with pytest.raises(
            ValueError, match=r"holds a phantom made with .*'seed': 0.* not with .*'seed': 5.* delete it"
        ):
            make_phantom(folder, **TINY, seed=5)
        assert frames_of(folder) == before

    @pytest.mark.parametrize("name", ["notes.txt", "datalist.json"])
    def test_other_files_are_refused(self, tmp_path, name):
        (tmp_path / name).write_text('{"training": []}')
        with pytest.raises(ValueError, match="not empty"):
            make_phantom(tmp_path, **TINY)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_killed_run_leaves_nothing_by_that_name_and_can_be_started_again(self, tmp_path, monkeypatch):
        save, saved = Image.Image.save, []

        def save_some(image, path):
            if len(saved) == 20:
                raise OSError("No space left on device")
            saved.append(path)
            save(image, path)

        monkeypatch.setattr(Image.Image, "save", save_some)
        with pytest.raises(OSError, match="No space left"):
            make_phantom(tmp_path / "phantom", **TINY)
        assert not (tmp_path / "phantom").exists()
        monkeypatch.undo()
        make_phantom(tmp_path / "phantom", **TINY)
        assert len(frames_of(tmp_path / "phantom")) == 24
        assert [path.name for path in tmp_path.iterdir()] == ["phantom"]

    def test_a_split_without_every_plane_is_refused_before_anything_is_written(self, tmp_path):
        with pytest.raises(ValueError, match="5 validation frames"):
            make_phantom(tmp_path, train=12, val=5, test=6)
        assert not list(tmp_path.iterdir())
