from __future__ import annotations

import datetime
import json
import re
from html import unescape
from html.parser import HTMLParser

import pytest
import torch

from monai_fetalkd.evaluation.report import Report
from monai_fetalkd.evaluation.report.page import number
from monai_fetalkd.ultrasound.data.datalist import Datalist

from .conftest import CLASSES

SECTIONS = [
    *("summary", "data", "curves", "confusion", "calibration", "cost", "attention", "grad-cam", "mistakes", "classes"),
    *("sources", "provenance"),
]


class Page(HTMLParser):
    """What a page refers to, its identifiers, and the text of each section."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.identifiers: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.drawings: list[dict[str, str | None]] = []
        self.text: dict[str, str] = {}
        self.tags: set[str] = set()
        self._section = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.links += [values[key] for key in ("src", "href", "xlink:href", "srcset", "action") if key in values]
        self.identifiers += [values["id"]] if "id" in values else []
        if tag == "section":
            self._section = values["id"]
        if tag == "img":
            self.images.append(values)
        if tag == "svg":
            self.drawings.append(values)

    def handle_data(self, data):
        self.text[self._section] = self.text.get(self._section, "") + data


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_file_holds_all_it_needs(drawn_run, capsys):
    output = drawn_run.report()()
    page = read(output)
    assert f"{output}" in capsys.readouterr().out
    assert page.links
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert all(image["src"].startswith("data:image/") for image in page.images)
    assert "script" not in page.tags
    assert not re.search(r"url\((?!#)|@import", output.read_text(encoding="utf-8"))


def test_every_figure_is_told_in_words_and_every_identifier_is_unique(finished, page_path):
    page = read(page_path)
    assert all(image["alt"] for image in page.images)
    assert all(drawing["aria-label"] and drawing["role"] == "img" for drawing in page.drawings)
    # 1 accuracy, 2 stages, 2 confusion matrices, 2 reliability diagrams, 2 costs
    assert len(page.drawings) == 9
    # 3 frames of (1 + 3 columns x 2 layers) attention, (1 + 2 networks) Grad-CAM, and the mistakes
    wrong = [min(6, int((table.classes != table.labels).sum())) for table in finished.predictions.values()]
    assert len(page.images) == 3 * 7 + 3 * 3 + sum(wrong)
    assert len(set(page.identifiers)) == len(page.identifiers)
    assert [identifier for identifier in page.identifiers if identifier in SECTIONS] == SECTIONS


def test_the_same_run_gives_the_same_bytes(drawn_run):
    first = drawn_run.report()().read_bytes()
    assert drawn_run.report(output=drawn_run.folder / "again.html")().read_bytes() == first


def test_names_are_text_and_never_markup(run):
    text = run.report(title="<script>alert(1)</script>")().read_text(encoding="utf-8")
    for name in ("<b>femur</b>", "site <0>", "run <it>", "<script>"):
        assert name not in text
        assert name in unescape(text)


def test_neither_patients_nor_files_are_named(page_path):
    text = page_path.read_text(encoding="utf-8")
    assert "secret" not in text
    assert "hospital" not in text


def test_the_networks_given_keep_weights_and_mode(run):
    networks = [network for network, _ in run.networks.values()]
    before = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]
    run.report()()
    for network, weights in zip(networks, before, strict=True):
        assert network.training
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_mistakes_come_worst_first(finished, page_path):
    page = read(page_path)
    table = finished.predictions["student"]
    wrong = [i for i in range(len(table.files)) if table.classes[i] != table.labels[i]]
    worst = sorted(wrong, key=lambda i: -table.probabilities[i].max())[:6]
    shown = re.findall(r"frame (\d+), site", page.text["mistakes"].rpartition("student")[2])
    assert [int(row) - 1 for row in shown] == worst


def set_content(run, change) -> None:
    path = run.folder / "evaluation" / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def without(key, empty):
    def change(content):
        for network in content["networks"].values():
            network[key] = empty

    return change


@pytest.mark.parametrize(
    ("change", "section", "sentence"),
    [
        (without("cost", None), "cost", "The cost of the networks was not measured."),
        (without("temperature", None), "calibration", "no temperature was fitted"),
        (without("sources", {}), "sources", "No source is known"),
        (lambda content: content.update(settings={}), "provenance", "no settings"),
    ],
)
def test_what_an_evaluation_lacks_is_said(run, change, section, sentence):
    set_content(run, change)
    page = read(run.report()())
    assert sentence in page.text[section]
    assert [identifier for identifier in page.identifiers if identifier in SECTIONS] == SECTIONS


def test_numbers_that_are_not_defined_are_dashes(run):
    def change(content):
        for network in content["networks"].values():
            network["metrics"]["macro_auroc"] = dict.fromkeys(("value", "low", "high"))
            network["metrics"]["accuracy"].update(low=None, high=None)

    set_content(run, change)
    text = run.report()().read_text(encoding="utf-8")
    assert re.search(r'data-metric="macro_auroc">\s*\N{EN DASH}\s*</td>', text)
    assert re.search(r'data-metric="accuracy">\s*[\d.]+\s*<small>no interval</small>\s*</td>', text)


def test_notes_of_the_evaluation_are_told_once(run):
    set_content(run, without("notes", ["No frame is of class 'x'."]))
    assert read(run.report()()).text["summary"].count("No frame is of class 'x'.") == 1


def test_a_note_of_one_network_names_it(run):
    content = json.loads((run.folder / "evaluation" / "metrics.json").read_text(encoding="utf-8"))
    content["networks"]["student"]["notes"] = ["All resamples are alike."]
    (run.folder / "evaluation" / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    assert "'student': All resamples are alike." in read(run.report()()).text["summary"]


def test_without_logs_the_report_says_so(run):
    page = read(run.report(log_dir=run.folder / "nowhere")())
    assert "no learning curves" in page.text["curves"]


def test_a_column_without_its_checkpoint_is_left_out_and_named(run):
    (run.folder / "initial.pt").unlink()
    text = read(run.report()()).text["attention"]
    assert "“before stage 1”" in text  # only the columns that are drawn stand without quotes
    assert "after stage 2" in text


def test_without_the_teacher_there_is_nothing_to_compare_with(run):
    (run.folder / "teacher.pt").unlink()
    page = read(run.report()())
    assert "“the teacher”" in page.text["attention"]
    assert "“teacher”" in page.text["grad-cam"].rpartition("Left out")[2]
    assert not any("Attention" in image["alt"] for image in page.images)


def test_without_history_and_layers_the_report_says_so(run):
    page = read(run.report(history={}, layers={})())
    assert "No checkpoints were named" in page.text["attention"]
    assert "No layers were named" in page.text["grad-cam"]


def test_without_an_evaluation_there_is_no_report(run):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        run.report(folder=run.folder)()


def test_predictions_that_are_missing_are_named(run):
    path = run.folder / "evaluation" / run.content["networks"]["student"]["predictions"]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        run.report()()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["class_names"].reverse(),
        lambda content: content["networks"]["student"].update(frames=23),
    ],
    ids=["class table", "number of frames"],
)
def test_predictions_of_another_evaluation_are_refused(run, change):
    set_content(run, change)
    with pytest.raises(ValueError, match="24 frames"):
        run.report()()


@pytest.mark.parametrize("change", [lambda rows: rows[::-1], lambda rows: rows[:-1]], ids=["order", "number"])
def test_a_dataset_of_other_frames_is_refused(run, change):
    run.dataset.data = change(run.dataset.data)
    with pytest.raises(ValueError, match="dataset"):
        run.report()()


def test_a_network_without_layers_cannot_be_a_column(run):
    with pytest.raises(ValueError, match="'student' .*layers"):
        run.report(layers={"teacher": ("0", "2")})


def test_columns_need_as_many_layers(run):
    with pytest.raises(ValueError, match="as many layers"):
        run.report(layers={"teacher": ("0", "2"), "student": ("0",)})


def opening(page) -> str:
    """What stands before the first section."""
    return " ".join(page.text[""].split())


def datalist(run, **about):
    others = [{**row, "image": f"training-{row['image']}", "group": f"t{row['label']}"} for row in run.dataset.data]
    return Datalist("planes.json", CLASSES, {"training": others, "testing": run.dataset.data}, about)


def test_it_opens_with_its_purpose_the_date_and_the_verdict(finished, page_path):
    text = opening(read(page_path))
    assert "medical device" in text
    assert datetime.date.today().isoformat() in text
    accuracy = finished.content["networks"]["student"]["metrics"]["accuracy"]["value"]
    assert f"“student” recognises {100 * accuracy:.1f}" in text
    assert re.search(r"24 frames of 12 patients .*testing", text)
    assert re.search(r"(better|worse|neither better nor worse) than “teacher”", text)
    assert "12 patients are few" in text
    assert "drawings" not in text


def test_drawings_are_not_called_patients(run):
    path = run.folder / "evaluation" / run.content["networks"]["teacher"]["predictions"]
    path.write_text(re.sub("site <[01]>", "phantom", path.read_text(encoding="utf-8")), encoding="utf-8")
    text = opening(read(run.report()()))
    assert "drawings, not patients" in text
    assert "12 drawn patients" in text


def test_the_data_are_named_with_their_licence_and_attribution(run):
    about = {"name": "PLANES", "licence": "CC BY 4.0", "reference": "Author et al. 2020"}
    text = opening(read(run.report(datalist=datalist(run, **about))()))
    assert all(value in text for value in about.values())


def test_a_licence_that_is_not_stated_is_said(run):
    assert "not stated" in opening(read(run.report(datalist=datalist(run, name="own frames"))()))


def test_frames_patients_and_settings_are_told(run):
    text = read(run.report(datalist=datalist(run))()).text["data"]
    assert re.search(r"brain & head\s*8 \(1\)\s*8 \(\d+\)", text)
    assert re.search(r"all\s*24 \(3\)\s*24 \(12\)", text)
    assert "site <0>" in text
    assert "20 \N{MULTIPLICATION SIGN} 24 pixels" in text
    assert "Sequential, 4,936 parameters" in text
    assert "3 epochs, 12 optimizer steps" in text


def test_few_patients_are_marked_where_they_are_counted(page_path):
    text = read(page_path).text
    assert re.search(r"site <0>\s*12\s*\d+\*", text["sources"])
    assert "*" in text["classes"]


def test_intervals_say_where_they_are_exact_or_cannot_be_estimated(run):
    def change(content):
        metrics = content["networks"]["student"]["metrics"]
        metrics["accuracy"] = {"value": 1.0, "low": 0.7, "high": 1.0, "method": "Clopper-Pearson"}
        metrics["macro_f1"] = {"value": 1.0, "low": None, "high": None}

    set_content(run, change)
    text = " ".join(read(run.report()()).text["summary"].split())
    assert "0.700 to 1.000 exact" in text
    assert "1.000 no interval" in text
    assert "Clopper and Pearson" in text


def test_a_threshold_is_told_with_its_coverage(run):
    found = {
        **{"value": 0.87654, "target": 0.95},
        **{"coverage": {"value": 0.61234, "low": 0.5, "high": 0.7}, "accuracy": {"value": 0.9, "low": 0.8, "high": 1}},
    }
    set_content(run, without("threshold", found))
    text = read(run.report()()).text["calibration"]
    assert all(part in text for part in ("coverage", "0.877", "0.612", "undecided"))
    set_content(run, without("threshold", None))
    assert "no threshold" in read(run.report()()).text["calibration"]


def test_maps_tell_their_grid_and_coarse_ones_are_not_shown(run):
    frames = run.dataset

    class Small:
        data = frames.data

        def __getitem__(self, index):
            return {**frames[index], "image": frames[index]["image"][..., :17, :20]}  # layers of 8 x 9 and 6 x 7

    page = read(run.report(dataset=Small())())
    shown = [image["alt"] for image in page.images if "Attention" in image["alt"]]
    assert shown
    assert all(" at 0 " in alt for alt in shown)
    assert "8 \N{MULTIPLICATION SIGN} 9" in page.text["attention"]
    assert "6 \N{MULTIPLICATION SIGN} 7" in page.text["attention"]
    assert "8 \N{MULTIPLICATION SIGN} 9 positions" in page.text["grad-cam"]
    coarse = read(run.report(dataset=Small(), layers={"teacher": ("2",), "student": ("2",)})())
    assert not any("Grad-CAM" in image["alt"] for image in coarse.images)
    assert re.search("7 \N{MULTIPLICATION SIGN} 7 .*“teacher”, “student”", coarse.text["grad-cam"])


def test_predictions_of_any_program_are_enough(finished, tmp_path):
    page = read(Report(finished.folder / "evaluation", tmp_path / "report.html")())
    assert page.images == []
    kept = [section for section in SECTIONS if section not in ("curves", "attention", "grad-cam")]
    assert [identifier for identifier in page.identifiers if identifier in SECTIONS] == kept
    assert {link[1:] for link in page.links if link.startswith("#")} >= set(kept)
    assert "frame " in page.text["mistakes"]
    assert "all" in page.text["data"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.12345,), "0.123"),
        ((None,), "\N{EN DASH}"),
        ((-0.5, 1), "\N{MINUS SIGN}0.5"),
        ((0.0, 3, True), "+0.000"),
        ((1234567, 0), "1,234,567"),
    ],
)
def test_numbers_are_written_for_people(arguments, text):
    assert number(*arguments) == text
