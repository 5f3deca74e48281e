"""What a single picture, name or text file looks like in the wild, and that it is read, or refused in one line.

Fuzzing is short here; NANODETR_FUZZ=1 makes it 10,000 examples each.
"""
import io
import json
import os
import struct
import subprocess
import sys
import unicodedata
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nanodetr.checkpoints.config import DETRConfig
from nanodetr.data import DataError, Photo, PhotoDataset, image_size, light_augment, paper_augment, read_image, resized_shape
from nanodetr.datasets.coco import CocoDataset, read_coco_results
from nanodetr.datasets.photos import MAX_PIXELS, deep_to_bytes, frame_count, is_nearly_black, open_picture
from nanodetr.datasets.records import Findings, Record, check_records
from nanodetr.datasets.text import (PICTURE_ENDINGS, decode_text, decode_xml, is_hidden, name_key, path_inside, read_text, split_entry,
                                    text_lines, visible_files, whole_number)
from nanodetr.errors import NanodetrError
from nanodetr.model import DETR
from nanodetr.plots import can_draw, captions, draw_detections, plot_boxes, plot_scenes, shown_names
from nanodetr.runs.run import wrong_kind

fuzz = settings(max_examples=10_000 if os.environ.get("NANODETR_FUZZ") else 60, deadline=None, suppress_health_check=list(HealthCheck))


def refused(read, *arguments, **named) -> str:
    "The one line that a DataError says, with a cause and a remedy."
    with pytest.raises(DataError) as error: read(*arguments, **named)
    line = str(error.value)
    assert "\n" not in line and "; " in line and error.value.what
    return line


# ---------------------------------------------------------------- text

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "cp1252"]
MARKED = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_list_in_every_encoding(tmp_path, encoding, ends):
    path, words = tmp_path / "list.txt", ["café", "naïve 2", "Straße"]
    path.write_bytes(ends.join(["", *words, ""]).encode(encoding))
    assert text_lines(path) == words
    if encoding in MARKED:
        path.write_bytes(MARKED[encoding] + ends.join(words).encode(encoding))
        assert text_lines(path) == words


def test_wide_text_in_other_scripts():
    for text in ("剪刀\n直剪 1\n", "кружка\n", "a\n", "[1]"):
        for encoding in ENCODINGS[2:7]: assert decode_text(text.encode(encoding), "x") == text


@pytest.mark.parametrize("text", ["猫\n狗", "安全帽\n反光衣\n", "person人\n车辆", "文件：猫，狗", "照片 1\r\n照片 2 -1", '{"name": "自行车", "file_name": "夏天/猫-2.jpg"}', "<name>行人</name>"])
def test_chinese_without_a_declaration(text):
    assert decode_text(text.encode("gbk"), "x") == decode_text(text.encode("gb18030"), "x") == text


WESTERN = """Früchte Äpfel GRÖßE ÄÖÜ CRÉÉE créée déçu ÇÀ été forêt cœur Þórður ÞÓRÐUR æøå ÆØÅ smörgåsbord garçon Ñandú ¿qué? ¡Olé! coração AÇÃO ação über Öl
“été” l’œuf «bien» 20°C ±1 ½ µm 3×4 naïïf Ångström ÅÄÖ český São Þó ÉÉ-bus xÄÖ Straße—Weg"""


@given(st.lists(st.sampled_from(WESTERN.split()), min_size=1, max_size=4), st.text(st.sampled_from([chr(k) for k in range(0xa1, 0x100)]), max_size=3))
@fuzz
def test_western_text_is_not_taken_for_chinese(words, letters):
    "Letters above ASCII inside a word, whatever they are, and ordinary words."
    text = " ".join([*words, f"a{letters}b"])
    data = text.encode("cp1252", "ignore")
    try: data.decode()
    except UnicodeDecodeError: assert decode_text(data, "x") == data.decode("cp1252")


@pytest.mark.parametrize("data, words", [
    (b"\xef\xbb\xbfcaf\xe9", "UTF-8, but damaged at byte"), (b"\xff\xfea\0b", "UTF-16, but damaged"), ("äöü".encode() * 5 + b"\xc3", "UTF-8, but damaged at byte 30"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not a text file"), (b"caf\x81", "not a text file"), (b"\xff\xfe\xfd\x00\x01", "damaged"), (b"a\0\0b\0c\x01", "not a text file")])
def test_what_is_no_text_is_refused(data, words):
    assert words in refused(decode_text, data, "list.txt")


@pytest.mark.parametrize("said, written", [("utf-8", "utf-8"), ("UTF-8", "cp1252"), ("utf-16", "utf-8"), ("utf-16", "utf-16"), ("utf-8", "utf-16"), ("gbk", "gbk"),
                                           ("windows-1252", "cp1252"), ("iso-8859-1", "latin-1"), ("rot13", "utf-8"), ("idna", "utf-8"), ("zlib", "utf-8-sig")])
def test_xml_in_the_encoding_that_it_has(said, written):
    from xml.etree import ElementTree
    word = "剪刀" if written == "gbk" else "Äpfel"
    text = f'\n<?xml version="1.0" encoding="{said}"?><name>{word}</name>'
    assert ElementTree.fromstring(decode_xml(text.encode(written), "a.xml")).text == word


def test_files_that_cannot_be_read(tmp_path):
    assert "no such file" in refused(read_text, tmp_path / "absent.txt")
    assert "is a folder" in refused(read_text, tmp_path)
    assert "cannot be read" in refused(read_text, tmp_path / "a\0b")


@given(st.binary(max_size=60))
@fuzz
def test_any_bytes_are_text_or_refused(data):
    for decode in (decode_text, decode_xml):
        try: assert isinstance(decode(data, "x"), str)
        except DataError as error: assert "\n" not in str(error)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), max_size=40), st.sampled_from(ENCODINGS[:3]))
@fuzz
def test_what_was_written_is_read(text, encoding):
    assert decode_text(text.encode(encoding), "x").lstrip("\ufeff") == text.lstrip("\ufeff")


# ---------------------------------------------------------------- names

KNOWN = {"a", "WhatsApp Image 1", "IMG 3 (copy)", "cam1/0001", "p.v2", "caf\u00e9", "-1"}


@pytest.mark.parametrize("line, entry", [
    ("a", ("a", None)), ("a 1", ("a", 1)), ("a  -1", ("a", -1)), ("a\t0", ("a", 0)), ("a.jpg", ("a", None)), ("a.JPEG +1", ("a", 1)), ("a.xml", ("a", None)),
    ('"WhatsApp Image 1"', ("WhatsApp Image 1", None)), ("WhatsApp Image 1", ("WhatsApp Image 1", None)), ("WhatsApp Image 1 -1", ("WhatsApp Image 1", -1)),
    ("'IMG 3 (copy).jpg'  1", ("IMG 3 (copy)", 1)), ("IMG 3 (copy).jpg", ("IMG 3 (copy)", None)), ("cam1\\0001.jpg 1", ("cam1/0001", 1)), (".\\cam1\\0001", ("cam1/0001", None)),
    ("./cam1/0001.png", ("cam1/0001", None)), ("p.v2", ("p.v2", None)), ("p.v2.jpg -1", ("p.v2", -1)), ("cafe\u0301.jpg", ("caf\u00e9", None)), ("\ufeffa", ("a", None)),
    ("-1", ("-1", None)), ("ghost.jpg 1", ("ghost", 1)), ("ghost.v3", ("ghost.v3", None)), ("ghost 7", ("ghost 7", None)), ('say "hi".jpg', ('say "hi"', None))])
def test_a_line_of_a_list(line, entry):
    assert split_entry(line, KNOWN) == entry


def test_hidden_files_are_nobodys(tmp_path):
    for name in ("b.jpg", "._b.jpg", ".hidden.png", "Thumbs.db", "desktop.ini", "A.JFIF", "~$b.jpg", "notes.txt"): (tmp_path / name).write_bytes(b"")
    for folder in ("sub", ".git", "__MACOSX", "@eaDir", "folder.jpg"): (tmp_path / folder).mkdir(), (tmp_path / folder / "c.png").write_bytes(b"")
    assert [path.name for path in visible_files(tmp_path, PICTURE_ENDINGS)] == ["A.JFIF", "b.jpg"]
    deep = [path.relative_to(tmp_path).as_posix() for path in visible_files(tmp_path, PICTURE_ENDINGS, deep=True)]
    assert deep == ["A.JFIF", "b.jpg", "folder.jpg/c.png", "sub/c.png"]
    assert not is_hidden("/home/me/.cache/set/a.jpg") and visible_files(tmp_path / "absent") == []


@pytest.fixture
def photos(tmp_path):
    for name in ("photos/cam 1/a.jpg", f"photos/{unicodedata.normalize('NFD', 'Größe')}/{unicodedata.normalize('NFC', 'café')}.jpg", "secret.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(tmp_path / name)
    return tmp_path / "photos"


def test_names_lead_to_files(photos):
    mixed = f"{unicodedata.normalize('NFC', 'Größe')}/{unicodedata.normalize('NFD', 'café')}.jpg"
    for name in ("cam 1/a.jpg", "cam 1\\a.jpg", "./cam 1/./a.jpg", "cam 1/../cam 1/a.jpg", "../photos/cam 1/a.jpg", mixed, str(photos / "cam 1/a.jpg")):
        assert path_inside(photos, name, "set.json").is_file(), name
    assert path_inside(photos, "absent/b.jpg", "set.json") == photos / "absent/b.jpg"


@pytest.mark.parametrize("name", ["../secret.jpg", "..\\secret.jpg", "cam 1/../../secret.jpg", "/etc/passwd", "\\etc\\passwd", "C:\\Users\\me\\a.jpg", "c:/a.jpg",
                                  "\\\\server\\share\\a.jpg", "../photos2/a.jpg", ".. /secret.jpg", ".../a.jpg"])
def test_names_that_lead_out_are_refused(photos, name):
    line = refused(path_inside, photos, name, "set.json")
    assert line.startswith("set.json: names ") and "outside" in line and "--allow-outside" in line


def test_names_that_lead_out_may_be_allowed(photos):
    assert path_inside(photos, "../secret.jpg", "set.json", allow_outside=True).is_file()
    assert path_inside(photos, str(photos.parent / "secret.jpg"), "set.json", allow_outside=True).is_file()


def test_a_sibling_with_the_same_beginning_is_outside(photos):
    (photos.parent / "photos2").mkdir()
    refused(path_inside, photos, str(photos.parent / "photos2/a.jpg"), "set.json")


@pytest.mark.parametrize("name", ["", ".", "/", "a\0.jpg", "\ud800.jpg", "a" * 300 + ".jpg", "./"])
def test_names_that_no_file_can_have(photos, name):
    assert "no file can be called" in refused(path_inside, photos, name, "set.json")


@given(st.text(max_size=30), st.booleans())
@fuzz
def test_any_name_is_inside_or_refused(name, allow):
    root = Path("/nowhere/photos")
    try: path = path_inside(root, name, "set.json", allow)
    except DataError: return
    assert allow or os.path.normpath(path).startswith("/nowhere/photos/")


@given(st.text(max_size=30))
@fuzz
def test_any_line_is_an_entry(line):
    entry = split_entry(line, KNOWN)
    assert entry.flag in (None, 0, 1, -1) and name_key(entry.name) == entry.name


# ---------------------------------------------------------------- ids and results

def test_one_rule_for_ids():
    for value in (7, "7", 7.0, "7.0", " 7 ", "007", "+7"): assert whole_number(value) == 7
    for value in (1.5, "1.5", "seven", "", "٧", True, False, None, float("nan"), float("inf"), 10**400, 2**63, "9" * 19, [7], {}): assert whole_number(value) is None
    assert whole_number(0) == 0 and whole_number("-1") == -1


def coco(folder, images=(1, 2), categories=(1, 2), **row):
    "A COCO file with an object in the first image, of the second category."
    data = {"images": [{"id": k, "file_name": f"{i}.jpg", "width": 20, "height": 10} for i, k in enumerate(images)],
            "annotations": [{"id": 0, "image_id": images[0], "category_id": categories[1], "bbox": [1, 1, 5, 5], **row}],
            "categories": [{"id": k, "name": f"class {i}"} for i, k in enumerate(categories)]}
    for i in range(len(images)): Image.new("RGB", (20, 10)).save(folder / f"{i}.jpg")
    path = folder / "set.json"
    path.write_text(json.dumps(data))
    return path


FOUND = {"image_id": 1, "category_id": 2, "bbox": [1, 1, 5, 5], "score": 0.9}


def results(folder, found, encoding="utf-8"):
    path = folder / "found.json"
    path.write_bytes(json.dumps(found).encode(encoding))
    return path


@pytest.mark.parametrize("kind", [int, str, float])
@pytest.mark.parametrize("other", [int, str, float])
def test_ids_meet_however_they_are_written(tmp_path, kind, other):
    path = coco(tmp_path, [kind(1), kind(2)], [kind(1), kind(2)])
    found = results(tmp_path, [FOUND | {"image_id": other(1), "category_id": other(2)}])
    detections, targets, classes = read_coco_results(path, found)
    assert detections[0]["labels"].tolist() == targets[0]["labels"].tolist() == [1] and torch.equal(detections[0]["boxes"], targets[0]["boxes"])
    data = CocoDataset(tmp_path, path)
    assert data.get_target(0)["labels"].tolist() == [1] and data.get_target(0)["image_id"] == 1 and data.category_ids == [1, 2]


@pytest.mark.parametrize("change, words", [
    ({"image_id": 1.5}, "image_id 1.5"), ({"category_id": 1.5}, "category_id 1.5"), ({"category_id": 77}, "category_id 77, which"), ({"image_id": True}, "image_id True"),
    ({"image_id": 10**400}, "image_id 1000"), ({"image_id": None}, "image_id None"), ({"category_id": float("nan")}, "category_id nan"), ({"bbox": [10**400, 1, 1, 1]}, "not four finite"),
    ({"bbox": [1e308, 1, 1e308, 1]}, "not four finite"), ({"score": 10**400}, "not a finite number"), ({"score": float("inf")}, "not a finite number"), ({"score": True}, "score True")])
def test_results_that_make_no_sense(tmp_path, change, words):
    line = refused(read_coco_results, coco(tmp_path), results(tmp_path, [FOUND | change]))
    assert words in line and "detection 0" in line and len(line) < 500 + 2 * len(str(tmp_path))


@pytest.mark.parametrize("value, crowd", [(0, 0), (1, 1), (True, 1), (False, 0), ("1", 1), ("0", 0), (1.0, 1), (None, 0)])
def test_crowds_as_tools_write_them(tmp_path, value, crowd):
    assert CocoDataset(tmp_path, coco(tmp_path, iscrowd=value)).get_target(0)["iscrowd"].tolist() == [crowd]


@pytest.mark.parametrize("value", ["no", "yes", "true", 2, -1, 0.5, [], float("nan"), 10**400])
def test_crowds_that_are_neither(tmp_path, value):
    path = coco(tmp_path, iscrowd=value)
    assert "neither 0 nor 1" in refused(CocoDataset, tmp_path, path)
    assert "neither 0 nor 1" in refused(read_coco_results, path, results(tmp_path, []))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_annotations_and_results_in_every_encoding(tmp_path, encoding):
    path = coco(tmp_path)
    path.write_bytes(path.read_text().replace("class 1", "Löffel").encode(encoding))
    detections, _, classes = read_coco_results(path, results(tmp_path, [FOUND], encoding))
    assert classes == ["class 0", "Löffel"] and len(detections[0]["labels"]) == 1
    path.write_bytes(path.read_bytes().decode(encoding).encode("cp1252"))
    assert read_coco_results(path, results(tmp_path, []))[2] == classes


def test_results_in_an_object_and_none_at_all(tmp_path):
    path = coco(tmp_path)
    plain, wrapped = (read_coco_results(path, results(tmp_path, found))[0] for found in ([FOUND], {"info": {}, "annotations": [FOUND]}))
    assert all(torch.equal(plain[0][key], wrapped[0][key]) for key in plain[0])
    assert [len(one["labels"]) for one in read_coco_results(path, results(tmp_path, []))[0]] == [0, 0]
    assert "not a list" in refused(read_coco_results, path, results(tmp_path, {"images": []}))
    no_score = {key: value for key, value in FOUND.items() if key != "score"}
    assert "has no 'score'" in refused(read_coco_results, path, results(tmp_path, [no_score]))
    assert "has no 'score'" in refused(read_coco_results, path, path)  # an annotations file in its place


def test_objects_with_ids_from_0_count(tmp_path):
    from nanodetr.evaluation import evaluate_detections
    detections, targets, classes = read_coco_results(coco(tmp_path), results(tmp_path, [FOUND]))
    assert evaluate_detections(detections, targets, "coco", classes=classes)["AP"] == pytest.approx(1)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([1, 2, "1", 0.5, 10**400]),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*FOUND, "annotations", "iscrowd", "id"]), inner, max_size=5), max_leaves=12)


@given(st.one_of(JSON, st.lists(st.fixed_dictionaries({key: JSON | st.just(value) for key, value in FOUND.items()}), max_size=2)))
@fuzz
def test_any_results_are_read_or_refused(tmp_path_factory, found):
    folder = tmp_path_factory.getbasetemp()
    path = coco(folder) if not (folder / "set.json").exists() else folder / "set.json"
    try: detections, *_ = read_coco_results(path, results(folder, found))
    except NanodetrError as error: assert "\n" not in str(error)
    else: assert len(detections) == 2 and all(torch.isfinite(one["boxes"]).all() for one in detections)


# ---------------------------------------------------------------- pictures

RAMP = np.tile(np.linspace(0, 1, 16), (8, 1))


@pytest.mark.parametrize("pixels, ending", [
    ((RAMP * 255).round().astype(np.uint8), "png"), ((RAMP * 65535).astype(np.uint16), "png"), ((RAMP * 65535).astype(np.uint16), "tif"), ((RAMP * 65535).astype(">u2"), "tif"),
    ((RAMP * 65535).astype(np.int32), "tif"), ((RAMP * 255).astype(np.int32), "tif"), ((RAMP * 1e6).astype(np.int32), "tif"),
    (RAMP.astype(np.float32), "tif"), ((RAMP * 255).astype(np.float32), "tif"), ((RAMP * 65535).astype(np.float32), "tif"), ((RAMP * 3).astype(np.float32), "tif"),
    ((RAMP * 2 - 1).astype(np.float32), "tif"), ((RAMP * 65535).astype(np.uint16), "pgm")])
def test_greys_of_every_depth_keep_their_brightness(tmp_path, pixels, ending):
    if ending == "pgm": (tmp_path / "x.pgm").write_bytes(b"P5 16 8 65535\n" + pixels.astype(">u2").tobytes())
    else: Image.fromarray(pixels).save(tmp_path / f"x.{ending}")
    image = read_image(tmp_path / f"x.{ending}")
    assert image.shape == (3, 8, 16) and (image - torch.tensor(RAMP)).abs().max() < 0.005


def test_dark_pictures_of_16_bits_stay_dark():
    assert deep_to_bytes(Image.fromarray(np.full((2, 2), 100, np.uint16))).max() == 0  # whatever the others in the set show, this one is dark
    assert is_nearly_black(torch.rand(3, 40, 40) / 16) and not is_nearly_black(torch.rand(3, 40, 40) / 4)
    spark = torch.zeros(3, 40, 40)
    spark[0, :2, :2] = 1
    assert not is_nearly_black(spark) and is_nearly_black(spark * 0)


@pytest.mark.parametrize("mode, colour, expected", [
    ("1", 1, (1, 1, 1)), ("L", 128, (0.5, 0.5, 0.5)), ("P", 0, None), ("RGB", (255, 0, 0), (1, 0, 0)), ("RGBA", (255, 0, 0, 0), (1, 1, 1)), ("RGBA", (0, 0, 0, 128), (0.5, 0.5, 0.5)),
    ("LA", (0, 0), (1, 1, 1)), ("CMYK", (0, 255, 255, 0), (1, 0, 0)), ("YCbCr", (255, 128, 128), (1, 1, 1))])
def test_every_mode_is_rgb(tmp_path, mode, colour, expected):
    path = tmp_path / {"CMYK": "x.jpg", "YCbCr": "x.jpg"}.get(mode, "x.png")
    Image.new(mode, (9, 7), colour).save(path)
    image = read_image(path)
    assert image.shape == (3, 7, 9) and (expected is None or (image[:, 3, 3] - torch.tensor(expected)).abs().max() < 0.02)


def test_transparent_palettes(tmp_path):
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "x.png", transparency=1)
    assert read_image(tmp_path / "x.png").min() == 1


def app1(jpeg: bytes, payload: bytes) -> bytes: return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


LYING = struct.pack("<H", 2) + struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHII", 0x011A, 10, 1, 38) + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
NOTES = {"twice": (b"Exif\0\0Exif\0\0II*\0\x08\0\0\0\0\0", False), "empty": (b"Exif\0\0", False), "garbage": (b"Exif\0\0garbage!", False),
         "lying, with a fraction that cannot be written": (b"Exif\0\0II*\0\x08\0\0\0" + LYING, True), "cut": (b"Exif\0\0II*\0\x08\0\0\0" + LYING[:9], False),
         "no such turn": (b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x0112, 3, 1, 99, 0), False),
         "a turn in words": (b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 0x0112, 2, 4, b"six\0", 0), False)}


@pytest.mark.parametrize("case", NOTES)
def test_damaged_exif_does_no_harm(tmp_path, case):
    note, turned = NOTES[case]
    pixels = (RAMP * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(file, "JPEG", quality=95)
    (tmp_path / "x.jpg").write_bytes(app1(file.getvalue(), note))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about the note
        image = read_image(tmp_path / "x.jpg")
        assert image.shape[1:] == image_size(tmp_path / "x.jpg") == ((16, 8) if turned else (8, 16))
        assert read_image(tmp_path / "x.jpg", (8, 16)).shape == (3, 8, 16)  # labelled as stored
    upright = image.rot90(1, (1, 2)) if turned else image
    assert (upright - torch.tensor(RAMP)).abs().max() < 0.05


def test_damaged_exif_is_no_news(tmp_path):
    "Pillow would warn without naming the file."
    for k, (note, _) in enumerate(NOTES.values()):
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "JPEG")
        (tmp_path / f"{k}.jpg").write_bytes(app1(file.getvalue(), note))
    code = "import sys\nfrom nanodetr.datasets.photos import read_image\nfor name in sys.argv[1:]: read_image(name)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, tmp_path.iterdir())], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation(tmp_path, number):
    from PIL import ImageOps
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 9, 3), dtype=np.uint8))
    exif = picture.getexif()
    exif[0x0112] = number
    picture.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as stored: expected = np.array(ImageOps.exif_transpose(stored))
    image = read_image(tmp_path / "x.png")
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected) and image_size(tmp_path / "x.png") == expected.shape[:2]


def test_endings_do_not_matter(tmp_path):
    for name, kind in (("a.jfif", "JPEG"), ("a.jpg", "PNG"), ("a.png", "WEBP"), ("a", "BMP"), ("a.JPE", "JPEG")):
        Image.new("RGB", (6, 4), "white").save(tmp_path / name, kind)
        assert read_image(tmp_path / name).shape == (3, 4, 6)


@pytest.mark.parametrize("ending, count", [("gif", 3), ("webp", 3), ("tif", 3), ("png", 3), ("jpg", 1)])
def test_further_frames_are_counted_and_told(tmp_path, ending, count):
    first = Image.new("RGB", (40, 30), "red")
    more = {} if ending == "jpg" else {"save_all": True, "append_images": [Image.new("RGB", (40, 30), colour) for colour in ("green", "blue")]}
    first.save(tmp_path / f"a.{ending}", **more)
    assert frame_count(tmp_path / f"a.{ending}") == count and tuple(read_image(tmp_path / f"a.{ending}")[:, 15, 20].gt(0.8)) == (True, False, False)
    for decode in (False, True):
        findings = Findings()
        check_records([Record("a", tmp_path / f"a.{ending}", tmp_path / "a.xml")], [], findings, decode)
        assert ["frames or pages" in one.what for one in findings.of("note")] == [True] * (decode and count > 1)
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    assert frame_count(tmp_path / "a.gif") == frame_count(tmp_path / "none.gif") == 1


def test_pictures_that_are_none(tmp_path):
    path, jpeg, png = tmp_path / "x.jpg", io.BytesIO(), io.BytesIO()
    noise = Image.effect_noise((60, 40), 90).convert("RGB")
    noise.save(jpeg, "JPEG"), noise.save(png, "PNG")
    cases = {b"": "is empty", b"<!DOCTYPE html><p>404": "web page", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 64: "video", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC",
             b"RIFF\0\0\0\0AVI LIST": "video", jpeg.getvalue()[:-300]: "truncated", png.getvalue()[:-3000]: "truncated", b"hello": "cannot be read as a picture"}
    for data, words in cases.items():
        path.write_bytes(data)
        line = refused(read_image, path)
        assert words in line and line.startswith(f"{path}: cannot be read as a picture (") and line.count(str(path)) == 1, line
    path.unlink()
    assert "no such picture" in refused(read_image, path)
    path.mkdir()
    for read in (read_image, image_size): assert "it is a folder" in refused(read, path)
    assert "cannot be read as a picture" in refused(read_image, tmp_path / "a\0.jpg")


def test_postscript_is_not_run(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg", "EPS")
    for read in (read_image, image_size): assert "it is PostScript" in refused(read, tmp_path / "x.jpg")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers(tmp_path, bad):
    pixels = RAMP.astype(np.float32)
    pixels[3, 3] = bad
    Image.fromarray(pixels).save(tmp_path / "x.tif")
    assert "x.tif" in (line := refused(read_image, tmp_path / "x.tif")) and "pixels that are not numbers" in line


def bomb(path, width, height):
    "A PNG of a few bytes that claims width x height pixels of grey."
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def test_large_pictures_are_refused_with_the_limit_named(tmp_path, monkeypatch):
    bomb(tmp_path / "x.png", 16000, 12000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning would be a second voice
        line = refused(read_image, tmp_path / "x.png")
        assert image_size(tmp_path / "x.png") == (12000, 16000)
    assert "16000 x 12000 are 192 million pixels" in line and "128 million" in line and "NANODETR_MAX_PIXELS=192000000" in line
    bomb(tmp_path / "huge.png", 2**31 - 1, 2**31 - 1)
    assert "limit" in refused(read_image, tmp_path / "huge.png")
    assert Image.MAX_IMAGE_PIXELS == 89478485  # Pillow's setting is the user's


def test_the_limit_can_be_moved(tmp_path, monkeypatch):
    Image.new("RGB", (30, 20), "white").save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png", max_pixels=600).shape == (3, 20, 30)
    assert "599" in refused(read_image, tmp_path / "x.png", max_pixels=599).replace("0.000599", "599")
    monkeypatch.setenv("NANODETR_MAX_PIXELS", "500")
    assert "NANODETR_MAX_PIXELS=600" in refused(read_image, tmp_path / "x.png")
    refused(PhotoDataset([Photo(tmp_path / "x.png", 0, (20, 30))], ["a"]).__getitem__, 0)  # loaders in other processes inherit it
    assert read_image(tmp_path / "x.png", max_pixels=0).shape == (3, 20, 30)
    for lifted in ("0", "600", "1e9"):
        monkeypatch.setenv("NANODETR_MAX_PIXELS", lifted)
        assert read_image(tmp_path / "x.png").shape == (3, 20, 30)
    monkeypatch.setenv("NANODETR_MAX_PIXELS", "many")
    assert "NANODETR_MAX_PIXELS=many" in refused(read_image, tmp_path / "x.png")
    assert MAX_PIXELS == 128_000_000


def test_pillows_own_limit_does_not_stop_a_lifted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (30, 20)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (3, 20, 30) and Image.MAX_IMAGE_PIXELS == 100
    with open_picture(tmp_path / "x.png") as picture: assert picture.size == (30, 20)


WHOLE = {}
for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(file, kind)
    WHOLE[kind] = file.getvalue()


def read_or_refuse(data: bytes, folder: Path) -> None:
    path = folder / "fuzzed.jpg"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (read_image, image_size):
            try: found = read(path)
            except NanodetrError as error: assert "\n" not in str(error)
            else: assert read is image_size or found.shape[0] == 3 and 0 <= found.min() and found.max() <= 1


@given(st.binary(max_size=80), st.sampled_from(["", *(data[:12] for data in WHOLE.values())]))
@fuzz
def test_any_bytes_are_a_picture_or_refused(tmp_path_factory, data, start):
    read_or_refuse((start or b"") + data, tmp_path_factory.getbasetemp())


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 2000))
@fuzz
def test_damaged_pictures_are_read_or_refused(tmp_path_factory, kind, changes, end):
    data = bytearray(WHOLE[kind])
    for place, value in changes: data[place % len(data)] = value
    read_or_refuse(bytes(data[:max(end % (2 * len(data)), 1)]), tmp_path_factory.getbasetemp())


# ---------------------------------------------------------------- strips and single pixels

THIN = [(1, 1), (1, 2), (2000, 50), (1, 200), (200, 1), (8, 3000), (1, 6000), (6000, 1), (3, 2)]


@pytest.mark.parametrize("sides", THIN, ids=str)
def test_pictures_of_any_shape_can_be_trained_on(sides):
    box = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]]), "area": torch.ones(1), "iscrowd": torch.zeros(1, dtype=torch.long)}
    torch.manual_seed(0)
    for augment, longest in ((light_augment(96, 144), 144), (light_augment(96, 144, False), 2 * 144), (light_augment(64, 64, False), 2 * 64)):
        for _ in range(6):
            image, target = augment(torch.rand(3, *sides), box)
            assert min(image.shape) >= 1 and max(image.shape) <= longest and torch.isfinite(target["boxes"]).all() and not wrong_kind((image, target))
    image, target = paper_augment(False)(torch.rand(3, *sides), box)
    assert min(image.shape) >= 1 and max(image.shape[1:]) <= 2 * 1333 and len(target["labels"]) == 1


@pytest.fixture(scope="module")
def small_model(): return DETR(DETRConfig.preset("nano", image_size=96, max_size=144)).eval()


@pytest.mark.parametrize("sides", [*THIN, (1, 60000)], ids=str)
def test_pictures_of_any_shape_can_be_detected_on(small_model, sides):
    found = small_model.detect([torch.rand(3, *sides)], 0.0)[0]
    assert len(found["scores"]) == small_model.config.num_queries and torch.isfinite(found["boxes"]).all()
    assert max(small_model.resize(torch.rand(3, *sides)).shape[1:]) <= 2 * 144


@pytest.mark.parametrize("size, longest", [(96, 144), (64, 64)])
def test_a_validation_resizes_as_detect_does(size, longest):
    "One pixel more may be one more column of the backbone's features, and another answer."
    model = DETR(DETRConfig.preset("nano", image_size=size, max_size=longest))
    for sides in ((375, 500), (64, 96), (100, 1020), (30, 4000), (2000, 15)):
        picture = torch.rand(3, *sides)
        before = torch.random.get_rng_state()
        image = light_augment(size, longest, False)(picture, {"labels": torch.zeros(0).long(), "boxes": torch.zeros(0, 4)})[0]
        assert torch.equal(torch.random.get_rng_state(), before) and image.shape == model.resize(picture).shape
        assert torch.allclose(image, model.resize(picture), atol=1e-4)
    assert resized_shape(1, 60000, 800, 1333) == (1, 1333) and resized_shape(2, 3000, 800, 1333) == (1, 1500)


# ---------------------------------------------------------------- drawing

BOXES = [[2, 3, 20, 14], [10, 2, 39, 28]]


def test_drawn_at_the_pictures_own_size():
    for sides in ((30, 40), (1, 1), (1, 60000), (60000, 1), (5, 300)):
        drawn = draw_detections(torch.rand(3, *sides), BOXES, [0, 1], [0.9, 0.5], ["cup", "spoon"])
        assert drawn.size == sides[::-1] and drawn.mode == "RGB"
    image = torch.full((3, 300, 400), 0.5)
    assert np.array_equal(np.array(draw_detections(image, torch.zeros(0, 4))), np.full((300, 400, 3), 128, np.uint8))
    plain = np.array(draw_detections(image, [[100, 80, 300, 250]], [0]))
    changed = (plain != 128).any(-1)
    assert changed[80, 200] and changed[165, 100] and not changed[165, 200] and not changed[60:70, 350].any()  # outline and label, nothing else
    assert image.unique().tolist() == [0.5], "the picture given is left alone"
    assert draw_detections(Image.new("L", (40, 30)), BOXES).size == draw_detections(np.zeros((30, 40), np.uint8), BOXES).size == (40, 30)


def test_lines_and_letters_grow_with_the_picture():
    share = []
    for scale in (1, 4):
        drawn = np.array(draw_detections(torch.full((3, 480 * scale, 640 * scale), 0.5), [[80 * scale, 120 * scale, 560 * scale, 400 * scale]], [0], [0.9], ["cup"]))
        share.append((drawn != 128).any(-1).mean())
    assert share[1] == pytest.approx(share[0], rel=0.35)


def test_boxes_without_sense_are_not_drawn():
    boxes = [[float("nan")] * 4, [1e9, -1e12, 5, 7], [20, 14, 2, 3], [-5, -5, 500, 500], [float("inf"), 0, 1, 1]]
    assert draw_detections(torch.rand(3, 30, 40), boxes, range(5), [0.5] * 5, list("abcde")).size == (40, 30)


@given(st.integers(1, 60), st.integers(1, 60), st.lists(st.tuples(*[st.floats(allow_nan=True)] * 4), max_size=4), st.lists(st.text(max_size=12), min_size=4, max_size=4))
@settings(fuzz, max_examples=30 if not os.environ.get("NANODETR_FUZZ") else 10_000)
def test_anything_can_be_drawn(height, width, boxes, names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert draw_detections(torch.rand(3, height, width), np.array(boxes).reshape(-1, 4), range(len(boxes)), [0.5] * len(boxes), names).size == (width, height)


def test_names_of_every_script_and_kind():
    assert shown_names(["cup", "US$ 5 or $6", "two\nlines", "x" * 60]) == ["cup", "US$ 5 or $6", "two lines", "x" * 39 + "…"]
    with pytest.warns(UserWarning, match="#1 is \ue124"): assert captions([0, 1], [0.5, 0.25], ["cup", "\ue124"]) == ["cup 0.50", "#1 0.25"]
    names = ["翻头剪", "чашка", "كأس", "$x_{", "\ue124", "\ud800"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = draw_detections(torch.rand(3, 200, 300), [[10, 10, 100, 100]] * 6, range(6), [0.5] * 6, names)
        figure = plot_boxes(torch.rand(3, 200, 300), [[10, 10, 100, 100]] * 6, range(6), [0.5] * 6, names)
        target = {"labels": torch.arange(6), "boxes": torch.rand(6, 4) / 2}
        scenes = plot_scenes([torch.rand(3, 64, 64)] * 8, [target] * 8, names, cols=8)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure._repr_png_(), scenes._repr_png_()
    assert drawn.size == (300, 200) and not [one for one in said if "Glyph" in str(one.message)], "an empty rectangle was drawn"
    assert [text.get_text() for text in scenes.legends[0].texts][:2] == [names[0] if can_draw(names[0]) else "#0", "чашка"]


def test_names_on_axes_and_in_explorers():
    from nanodetr.explorers.core import _letters
    from nanodetr.plots import plot_heat
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure = plot_heat(np.eye(2), ["$x_{$", "чашка"], ["$\\alpha$", "翻头剪" if can_draw("翻头剪") else "cup"])
        assert figure._repr_png_().startswith(b"\x89PNG") and not [one for one in said if "Glyph" in str(one.message)]
    plain, escaped, other = (_letters(text, 12.0, "normal")[2] for text in ("\\ue123 0.5", "\ue123 0.5", "чашка 0.5"))
    assert plain == escaped and other > 0, "letters that no font has are written as their numbers"


def test_classes_on_axes_without_a_font():
    "Where a name stands beside an axis, its number and a warning take its place, as in pictures."
    from nanodetr.plots import plot_evaluation, plot_query_places
    names, scores = ["cup", "\ue125"], {"AP50": 0.5, "objects": 3}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figures = [plot_evaluation(dict.fromkeys(names, scores), np.ones((3, 3), int), {"correct": 3, "missed": 1}), plot_query_places(torch.rand(4, 4), [0, 0, 1, 1], [0, 1, 1, 0], names)]
        for figure in figures: figure._repr_png_()
    told = [str(one.message) for one in said]
    assert not [one for one in told if "Glyph" in one] and sum("#1 is \ue125" in one for one in told) == 1
    assert figures[0].axes[0].get_yticklabels()[1].get_text() == "#1 (3)" and figures[1].axes[2].get_xticklabels()[1].get_text() == "#1"


def test_a_machine_without_fonts_shows_numbers(monkeypatch):
    from nanodetr.plots import style
    monkeypatch.setattr(style, "font_paths", lambda: [style.font_manager.findfont("DejaVu Sans")])
    monkeypatch.setattr(style, "_LETTERS", {})
    with pytest.warns(UserWarning, match="#0 is 翻头剪, #2 is 直剪"): assert shown_names(["翻头剪", "cup", "直剪"]) == ["#0", "cup", "#2"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_the_letters(monkeypatch, encoding):
    "PYTHONIOENCODING=ascii in this process; the notebook of the errors does it in one of its own."
    from nanodetr import cli
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in "oe"]
    monkeypatch.setattr(sys, "stdout", streams[0]), monkeypatch.setattr(sys, "stderr", streams[1])

    def check(args):
        print("剪刀", "\ud800")
        raise DataError("剪刀.xml: broken; mend it")
    monkeypatch.setattr(cli, "check_command", check)
    assert cli.main(["check", "."]) != 0
    out, err = (stream.flush() or stream.buffer.getvalue().decode(encoding) for stream in streams)
    name = "剪刀" if encoding == "utf-8" else "\\u526a\\u5200"
    assert out.split() == [name, "\\ud800"] and f"{name}.xml: broken; mend it" in err


# ---------------------------------------------------------------- labels and flags in memory

@pytest.mark.parametrize("where, change, words", [
    ("detections", {"labels": torch.tensor([1.5])}, "detections 0 has a label that is not a whole number"), ("targets", {"labels": [0.5]}, "targets 0 has a label that is not a whole number"),
    ("targets", {"labels": torch.tensor([float("nan")])}, "not a whole number"), ("targets", {"iscrowd": ["no"]}, "iscrowd that are not numbers"), ("targets", {"iscrowd": [0.5]}, "neither 0 nor 1"),
    ("targets", {"iscrowd": [2]}, "neither 0 nor 1"), ("targets", {"difficult": [float("nan")]}, "neither 0 nor 1"), ("detections", {"labels": ["cup"]}, "labels that are not numbers"),
    ("detections", {"scores": [10**400]}, "scores that are not numbers")])
def test_an_evaluation_refuses_what_is_no_label_and_no_flag(where, change, words):
    from nanodetr.evaluation import evaluate_detections
    sides = {"detections": {"labels": [1], "boxes": [[1, 1, 5, 5]], "scores": [0.9]}, "targets": {"labels": [1.0], "boxes": [[1, 1, 5, 5]], "iscrowd": [False]}}
    assert evaluate_detections([sides["detections"]], [sides["targets"]], classes=["cup", "spoon"])["AP"] == pytest.approx(1)
    sides[where] |= change
    with pytest.raises(NanodetrError, match=words): evaluate_detections([sides["detections"]], [sides["targets"]], classes=["cup", "spoon"])
