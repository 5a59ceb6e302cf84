"""Where sentences end, by example, in many languages."""

from itertools import pairwise

import pytest

from tts_actors.text import sentence_ends


def sentences(text: str, language: str) -> list[str]:
    ends = sentence_ends(text, language)
    return [text[start:end].strip() for start, end in pairwise([0, *ends])]


BY_LANGUAGE = [
    ("en", ["Mr. Smith paid $3.50.", "He left at once!", "Did he?"]),
    ("en", ["See No. 5 and Vol. 4.", "Then go on."]),
    ("en", ["J. R. R. Tolkien wrote it.", "The U.S. Army came."]),
    ("en", ["Wait…", "What?", "Hm...", "Yes.", "No... not yet."]),
    ("en", ["“Why?” she asked.", "He shrugged."]),
    ("en", ["hello there.", "how are you.", "i am fine."]),
    ("de", ["Der 2. Weltkrieg war lang.", "Am 3. Mai kam Hrn. Schmidts Brief."]),
    ("de", ["Er wurde 25.", "Dann ging er."]),
    ("de", ["Das ist z.B. Prof. Müller, d.h. Anna.", "Gut."]),
    ("fr", ["Il a vu M. Dupont.", "Mme. Durand aussi, p. 12.", "Fin."]),
    ("es", ["El Sr. López, pág. 3, vive en la Av. Real.", "¿Sí?", "¡Claro!"]),
    ("pt-BR", ["Moro na Av. Paulista, n. 5.", "Sim."]),
    ("it", ["Il sig. Rossi è qui.", "Bene."]),
    ("nl", ["Dat is d.w.z. Jan komt.", "Ja."]),
    ("pl", ["O godz. 10 wyszedł, tj. Jan.", "Koniec."]),
    ("ru", ["Он жил на ул. Ленина, т.е. рядом.", "Конец."]),
    ("zh", ["你好。", "今天天气好！", "“真的吗？”", "他说。"]),
    ("ja", ["「こんにちは。元気ですか？」", "と彼は言った。", "そうだ！"]),
    ("en", ["他走了……", "我不知道。"]),
    ("ar", ["مرحبا.", "كيف حالك؟", "أنا بخير."]),
    ("he", ["שלום.\u200f", "מה שלומך?"]),
    ("hi", ["नमस्ते।", "कैसे हो?", "ठीक है।"]),
    ("km", ["សួស្តី។", "អ្នកសុខសប្បាយទេ។", "ល្អ"]),
    ("am", ["ሰላም።", "እንዴት ነህ?"]),
    ("th", ["สวัสดีครับ คุณสบายดีไหม"]),
]


@pytest.mark.parametrize(("language", "expected"), BY_LANGUAGE)
def test_sentences_are_found(language: str, expected: list[str]) -> None:
    assert sentences(" ".join(expected), language) == expected


def test_cjk_sentences_need_no_space_between_them() -> None:
    assert sentences("你好。天气好！真的吗？", "zh") == ["你好。", "天气好！", "真的吗？"]
    assert sentences("他走了……我不知道。", "zh") == ["他走了……", "我不知道。"]


def test_khmer_and_so_on_does_not_end_a_sentence() -> None:
    assert len(sentences("ផ្លែឈើ។ល។ និងបន្លែ។ ចប់", "km")) == 2


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_single_newline_is_a_hard_wrap(newline: str) -> None:
    assert len(sentences(f"The keeper{newline}lit the lamp.{newline}It burned.", "en")) == 2


@pytest.mark.parametrize("blank", ["\n\n", "\r\n\r\n", "\r\r", "\n \t\n", "\u2029", "\r\n\u00a0\r\n"])
def test_a_blank_line_ends_a_sentence_without_a_full_stop(blank: str) -> None:
    assert sentences(f"A heading{blank}the text", "en") == ["A heading", "the text"]


def test_list_items_are_sentences_and_keep_their_numbers() -> None:
    assert sentences("1. Buy milk\n2. Buy eggs", "en") == ["1. Buy milk", "2. Buy eggs"]
    assert sentences("Shopping:\n- milk\n- eggs", "en") == ["Shopping:", "- milk", "- eggs"]


def test_what_cannot_be_spoken_goes_to_the_sentence_before() -> None:
    assert sentences("One.\n\n***\n\nTwo. 👍", "en") == ["One.\n\n***", "Two. 👍"]


def test_what_cannot_be_spoken_goes_to_the_first_sentence_if_none_is_before() -> None:
    assert sentences("*** \n\n One. Two.", "en") == ["*** \n\n One.", "Two."]


def test_text_with_nothing_to_speak_is_one_sentence() -> None:
    assert sentences("👍! 🎉?\n\n🎈", "en") == ["👍! 🎉?\n\n🎈"]


def test_only_the_first_part_of_a_language_tag_counts() -> None:
    text = "Moro na Av. Paulista. Sim."
    assert sentence_ends(text, "pt_BR") == sentence_ends(text, "PT") == sentence_ends(text, "pt-BR")


@pytest.mark.parametrize("language", ["xx", "", "tlh", "???", "é", "i-klingon"])
def test_unknown_languages_work(language: str) -> None:
    assert sentences("Hi there. You too!", language) == ["Hi there.", "You too!"]


def test_a_long_paragraph_gives_the_same_sentences_as_a_short_one() -> None:
    unit = "The lamp was lit, Mr. Smith said. “Who did it? I wonder.” Nobody answered! "
    assert sentences(unit * 500, "en") == sentences(unit, "en") * 500
