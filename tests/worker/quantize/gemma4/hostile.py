"""Texts that tokenizers are known to differ on."""

from __future__ import annotations

from typing import Final

TEXTS: Final = (
    "",
    " ",
    "  ",
    "   a   b  ",
    "\n",
    "\n\n",
    "\n\n\n\n\n\n\n",
    "a\nb\n\nc\n\n\n d",
    "\t\t\tx",
    " \n \n\n ",
    "\r\n\r\n",
    "the capital is Paris",
    "<bos>",
    "<bos>\n\n<bos>",
    " <bos> ",
    "<pad><eos><unk><mask>",
    "<|turn>user\nhi<turn|>\n",
    "<|turn",
    '<|tool_call>call:x{a:<|"|>b<|"|>}<tool_call|>',
    "<0x41><0x0A>",
    "▁▁the▁",
    "é e\u0301 ﬁ a\u0300\u0301\u0302",
    "中文字符 日本語 한국어",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "\x00\x01\x7f",
    "\ufeffx\u200b\u202e",
    "a" * 500,
    "ab " * 200,
    "0123456789 3.14159 1e-9",
    "עברית العربية",
    "\u00a0\u3000\u2028x",
    "\U0001d518\U0001d52b \U0010ffff",
    "def f(x):\n    return x\n\n\n    # done\t\n",
    "<unused0> [multimodal] I'll can't",
)
