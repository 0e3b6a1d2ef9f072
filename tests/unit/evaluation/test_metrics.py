import random
from itertools import combinations

import pytest

from danlu.data.words import has_loop, is_mostly_chinese, lcs_length, words
from danlu.evaluation.metrics.bleu import Bleu
from danlu.evaluation.metrics.chrf import ChrF
from danlu.evaluation.metrics.exact_match import ExactMatch
from danlu.evaluation.metrics.rouge_l import RougeL
from danlu.recipe.base import METRICS

PAIRS = [
    ("the cat sat on the mat", "the cat lay on a mat"),
    ("张家界位于湖南省", "张家界在湖南省西北部"),
    ("天门山 cable car takes 28 minutes", "天门山索道约 28 分钟"),
    ("It costs 3.14 dollars, OK?", "it costs 3.14 dollars"),
    ("🙂🙂👍", "👍🙂"),
    ("12345", "12345"),
]


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_is_sane_on_edges(name: str) -> None:
    metric = METRICS[name]()
    top = {"0-1": 1.0, "0-100": 100.0}[metric.unit]
    assert metric.score("", "") == metric.score(" \n", "") == pytest.approx(top)
    assert metric.score("", "answer") == metric.score("answer", "") == metric.score("。。。", "张家界") == 0.0
    for text in ("42", "张家界", "🙂👍🎉🚀", "a" * 5000, "x\x00y\tz\u202e"):
        assert metric.score(text, text) == pytest.approx(top)
        assert isinstance(metric.score(text, text), float)
    for prediction, reference in PAIRS:
        assert 0 <= metric.score(prediction, reference) <= top + 1e-9


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [
        ("Yes.", "yes", True),
        ("  ＡＢＣ  １２３！", "abc 123", True),
        ("是的。", "是的", True),
        ("a  b\nc", "a b c", True),
        ("3.5", "35", False),
        ("!", "?", False),
        ("...", "...", True),
        ("no", "yes", False),
    ],
)
def test_exact_match_looks_past_typing_only(prediction: str, reference: str, same: bool) -> None:
    assert ExactMatch().score(prediction, reference) == float(same)


def brute_force_lcs(left: str, right: str) -> int:
    subsequences = {tuple(left[i] for i in pick) for size in range(len(left) + 1) for pick in combinations(range(len(left)), size)}

    def is_inside(wanted: tuple[str, ...]) -> bool:
        letters = iter(right)
        return all(letter in letters for letter in wanted)

    return max(len(s) for s in subsequences if is_inside(s))


def test_the_bit_parallel_subsequence_equals_brute_force() -> None:
    draw = random.Random(0)
    for _ in range(150):
        left, right = ("".join(draw.choices("abc", k=draw.randint(0, 9))) for _ in range(2))
        assert lcs_length(left, right) == brute_force_lcs(left, right)


@pytest.mark.parametrize(("prediction", "reference"), PAIRS)
def test_rouge_l_equals_the_reference_package_with_our_words(prediction: str, reference: str) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")

    class Words:
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    expected = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Words()).score(reference, prediction)["rougeL"].fmeasure
    assert RougeL().score(prediction, reference) == pytest.approx(expected)


def test_rouge_l_counts_chinese_by_character() -> None:
    assert RougeL().score("张家界位于湖南省", "张家界在湖南省西北部") == pytest.approx(2 * 6 / (8 + 10))
    assert words("在Hunan省, 3.5 days") == ["在", "hunan", "省", "3", "5", "days"]


def test_bleu_and_chrf_equal_hand_computed_values() -> None:
    # Precisions 5/6, 3/5, 1/4 and, smoothed, (1/2)/3; equal lengths.
    expected = 100 * (5 / 6 * 3 / 5 * 1 / 4 * 1 / 6) ** 0.25
    assert Bleu().score("the cat sat on the mat", "the cat is on the mat") == pytest.approx(expected)
    # Tokenizer zh: characters 4/5, 3/4, 2/3, 1/2.
    assert Bleu().score("我爱天门山", "我爱天门寺") == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    # Orders 1..3 exist: 2/3, 1/2, 0/1 in precision and recall alike.
    assert ChrF().score("abc", "abd") == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_mostly_chinese_is_told_by_words() -> None:
    assert is_mostly_chinese("天门山索道约 28 分钟")
    assert not is_mostly_chinese("Tianmen Mountain (天门山) is in Hunan province")
    assert not is_mostly_chinese("🙂")


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("我不知道，" * 10, True),
        ("Sure. " + "a" * 60, True),
        ("Step one, then step two. " * 5, True),
        ("The museum opens at nine and closes at five; bring water and a hat.", False),
        ("Step one, then step two. " * 3, False),
        ("ha ha ha", False),
        ("", False),
        ("我不知道，" * 10 + "但是可以去问问。", False),
    ],
)
def test_loops_are_seen_at_the_end_only(text: str, loops: bool) -> None:
    assert has_loop(text) is loops
