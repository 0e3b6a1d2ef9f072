"""Why rows were dropped or fixed: what is counted together, and the same in Chinese."""

import re
from collections import Counter
from collections.abc import Iterable

MAX_KINDS = 200
OTHER = "other reasons"
POSITION = re.compile(r"(?<=not JSON): .*")

CHINESE: tuple[tuple[str, str], ...] = (
    (r"other reasons", "其他原因"),
    (r"same content", "内容相同"),
    (r"nearly the same content", "内容几乎相同"),
    (r"empty answer", "回答为空"),
    (r"empty prompt", "问题为空"),
    (r"empty text", "文本为空"),
    (r"empty (.+) turn", r"\1 轮为空"),
    (r"no answer: no assistant turn", "没有回答：没有 assistant 轮"),
    (r"no answer in '(.+)'", r"\1 里没有回答"),
    (r"no prompt: no user turn", "没有问题：没有 user 轮"),
    (r"no prompt, and the two dialogues share no beginning", "没有问题，两段对话也没有共同的开头"),
    (r"no prompt or no completion column", "缺少问题列或回答列"),
    (r"no column '(.+)'", r"缺少列 \1"),
    (r"no question or answer marker", "没有问答标记"),
    (r"no turn is trained on: every loss weight is 0", "没有一轮参与训练：所有权重都是 0"),
    (r"text before the first question", "第一个问题之前的文字"),
    (r"unknown role '(.*)'", r"未知的角色 \1"),
    (r"system message in the middle of the conversation", "系统消息出现在对话中间"),
    (r"tool turn that no assistant turn called for", "没有被 assistant 调用的 tool 轮"),
    (r"the prompt does not end with a user turn", "问题不以 user 轮结束"),
    (r"chosen and rejected are the same", "chosen 与 rejected 相同"),
    (r"a label is '(.+)', not true or false", r"标签 \1 不是 true 或 false"),
    (r"an answer is missing", "缺少一个回答"),
    (r"marked as an undesirable answer \(label: false\)", "被标为不好的回答（label: false）"),
    (r"a message is not a mapping of role and content", "有一条消息不是 role 与 content 的映射"),
    (r"a turn is not a mapping of from and value", "有一轮不是 from 与 value 的映射"),
    (r"a message holds a part of type '(.+)'; only text can be trained on", r"消息里有 \1 类型的内容；只能训练文本"),
    (r"'(.+)' is not a list, nor JSON text of one", r"\1 不是列表，也不是列表的 JSON 文本"),
    (r"'(.+)' is not a list with at least one message", r"\1 不是至少有一条消息的列表"),
    (r"`tools` is not JSON", "tools 不是 JSON"),
    (r"`tools` is not a list of mappings", "tools 不是由映射组成的列表"),
    (r"`instances` is not a list with one entry", "instances 不是只有一项的列表"),
    (r"`history` is not a list of \[question, answer\] pairs", "history 不是［问题，回答］对的列表"),
    (r"a loss weight is '(.+)', not a number", r"权重 \1 不是数字"),
    (r"a loss weight is (.+), more than (.+)", r"权重 \1 大于 \2"),
    (r"a function_call is not JSON", "function_call 不是 JSON"),
    (r"a function_call has no name", "function_call 没有 name"),
    (r"holds values that JSON cannot hold", "含有 JSON 无法表示的值"),
    (r"nested too deeply", "嵌套太深"),
    (r"not JSON(: .*)?", r"不是 JSON\1"),
    (r"not a JSON object but (.+)", r"不是 JSON 对象，而是 \1"),
    (r"not CSV: (.+)", r"不是 CSV：\1"),
    (r"(line|record|row) longer than (\d+) MB(?:; what follows it is not read)?", r"一行超过 \2 MB"),
    (r"the file ends in the middle of a record \(its last (\d+) bytes; was it cut off\?\)", r"文件在一条记录中间结束（最后 \1 字节；是否被截断？）"),
    (r"a quote is never closed", "引号没有闭合"),
    (r"a quote is not closed within (\d+) lines", r"引号在 \1 行内没有闭合"),
    (r"(\d+) cells for (\d+) columns \(is a delimiter inside an unquoted cell\?\)", r"\2 列的表里有 \1 个单元格（没加引号的单元格里有分隔符？）"),
    (r"column '(.+)' holds bytes, not text", r"列 \1 是字节，不是文本"),
    (r"NUL characters removed", "删去了 NUL 字符"),
    (r"broken characters \(lone surrogates\) removed", "删去了残缺字符（孤立代理项）"),
    (r"text direction overrides removed", "删去了文字方向控制符"),
    (r"invisible characters removed", "删去了不可见字符"),
    (r"control characters removed", "删去了控制字符"),
    (r"characters composed \(Unicode NFC\)", "合成了组合字符（Unicode NFC）"),
    (r"line ends made \\n", r"换行统一为 \\n"),
    (r"special tokens removed", "删去了特殊词元"),
    (r"prompt template wrappers \(### Instruction:, ### Response:\) removed", "删去了提示模板外壳（### Instruction:、### Response:）"),
    (r"empty system message removed", "删去了空的系统消息"),
    (r"leading assistant turn removed", "删去了开头的 assistant 轮"),
    (r"(.+) turn after the last answer removed", r"删去了最后一个回答之后的 \1 轮"),
    (r"consecutive (.+) turns joined", r"合并了连续的 \1 轮"),
    (r"role '(.*)' read as '(.+)'", r"角色 \1 读作 \2"),
    (r"a number kept as text", "数字按文本保留"),
    (r"true/false kept as text", "真假值按文本保留"),
    (r"a JSON value kept as text", "JSON 值按文本保留"),
    (r"a value that is not text kept as text", "非文本的值按文本保留"),
    (r"key '(.*)' given twice; the last value counts", r"键 \1 出现两次；以最后的值为准"),
    (r"trailing comma removed", "删去了行尾逗号"),
    (r"JSON repaired: raw control characters, lone surrogates or NaN", "修复了 JSON：裸控制字符、孤立代理项或 NaN"),
    (r"the answer alone is longer than (\d+) tokens", r"仅回答就超过 \1 个词元"),
    (r"longer than (\d+) tokens", r"超过 \1 个词元"),
    (r"no token to train on", "没有参与训练的词元"),
    (r"held out by an earlier round", "是更早一轮的留出样例"),
    (r"also among the held-out rows that the data gives", "也在数据给定的留出样例中"),
    (r"the chat template refuses it: (.+)", r"对话模板拒绝：\1"),
    (
        r"shortened to (\d+) tokens: (\d+) oldest messages and (\d+) characters of the prompt removed",
        r"截短到 \1 个词元：删去最早的 \2 条消息和问题中的 \3 个字符",
    ),
    (r"line read as GB18030 in a UTF-8 file", "UTF-8 文件中的一行按 GB18030 读取"),
    (r"bytes that are not UTF-8 removed", "删去了不是 UTF-8 的字节"),
)
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), chinese) for pattern, chinese in CHINESE)


def in_chinese(reason: str) -> str:
    """Return a reason of the account in Chinese; itself when it is not one of ours (a plug-in's, say)."""
    for pattern, chinese in _PATTERNS:
        if match := pattern.fullmatch(reason):
            return match.expand(chinese)
    return reason


def count_reasons(counter: Counter[str], reasons: Iterable[str]) -> None:
    """Count reasons by kind: positions are left out, and beyond 200 kinds the rest is counted as one."""
    for reason in reasons:
        kind = POSITION.sub("", reason)
        counter[kind if kind in counter or len(counter) < MAX_KINDS else OTHER] += 1
