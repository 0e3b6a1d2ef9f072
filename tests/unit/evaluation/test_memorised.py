from pathlib import Path
from typing import Any

import numpy as np
import orjson

from danlu.evaluation.memorised import find, grams_of


def chat(line: int, question: str, answer: str) -> dict[str, Any]:
    return {"line": line, "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def look(tmp_path: Path, test: list[dict[str, Any]], train: list[dict[str, Any]]) -> dict[str, Any]:
    return find(write(tmp_path / "test.jsonl", test), write(tmp_path / "train.jsonl", train))


ANSWER = "天门山索道全长七千四百五十五米，单程大约二十八分钟，是世界上最长的高山客运索道之一。"
OTHER = "The glass bridge over the canyon is four hundred and thirty metres long and opened in August 2016."


def test_copies_are_found_whatever_their_typing(tmp_path: Path) -> None:
    found = look(
        tmp_path, [chat(1, "索道多长时间？请告诉我吧", ANSWER), chat(2, "x", OTHER)], [chat(7, "How long?", f"  {ANSWER}\n"), chat(8, "y", OTHER.upper())]
    )
    assert (found["num_checked"], found["num_found"], found["num_exact"]) == (2, 2, 2)
    assert found["rows"][0] == {"example": 0, "line": 1, "matches": [{"part": "answer", "kind": "exact", "containment": 1.0, "train_line": 7}]}


def test_a_copy_with_a_few_words_changed_is_near(tmp_path: Path) -> None:
    found = look(
        tmp_path,
        [chat(1, "q", ANSWER), chat(2, "r", OTHER)],
        [chat(3, "z", f"您好！{ANSWER.replace('大约', '约')}祝您玩得开心。"), chat(4, "w", OTHER.replace("four hundred", "400"))],
    )
    assert [row["matches"][0]["kind"] for row in found["rows"]] == ["near", "near"]
    assert all(0.8 <= row["matches"][0]["containment"] < 1 for row in found["rows"])


def test_near_copies_equal_a_brute_force_search(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    train = ["".join(random.choice(list("天地玄黄宇宙洪荒日月"), 60)) for _ in range(40)]
    test = []
    for number, text in enumerate(train):
        letters = list(text)
        for position in random.choice(60, number % 6, replace=False):
            letters[position] = "Q"
        test.append("".join(letters))
    found = look(tmp_path, [chat(i, "q", t) for i, t in enumerate(test)], [chat(i, "z", t) for i, t in enumerate(train)])

    def grams(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(len(text) - 4)}

    expected = {i for i, t in enumerate(test) if max(len(grams(t.lower()) & grams(s)) / len(grams(t)) for s in train) >= 0.8}
    assert {row["example"] for row in found["rows"]} == expected and 0 < len(expected) < 40


def test_short_answers_shared_instructions_and_forms_are_not_leaks(tmp_path: Path) -> None:
    form = '{"name": "%s", "price_in_yuan": %d, "category": "household", "in_stock": true, "currency": "CNY"}'
    names = ["kettle", "lamp", "broom", "mirror", "towel", "basin", "chair", "shelf", "clock", "stool", "fan", "mop"]
    test = [chat(i, "Turn this into the JSON form we agreed on, please.", form % (name, 100 + 7 * i)) for i, name in enumerate(names)]
    train = [chat(50 + i, "Turn this into the JSON form we agreed on, please.", form % (f"item{i}", i)) for i in range(30)]
    assert look(tmp_path, test, train)["num_found"] == 0
    assert look(tmp_path, [chat(1, "ok?", "yes")], [chat(2, "ok?", "yes")])["num_found"] == 0


def test_plain_text_and_empty_files(tmp_path: Path) -> None:
    found = look(tmp_path, [{"line": 1, "text": OTHER}], [{"line": 2, "text": f"Intro. {OTHER} And more."}])
    assert (found["num_found"], found["rows"][0]["matches"][0]["part"]) == (1, "text")
    assert look(tmp_path, [], [])["num_found"] == 0
    assert len(grams_of("abcd")) == 0 and len(grams_of("abcde")) == 1
