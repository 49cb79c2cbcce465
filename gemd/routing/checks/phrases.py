"""Set phrases in an answer: a refusal, a gap that was left to be filled in."""

from __future__ import annotations

import re
from typing import Final

from gemd.routing.checks.fault import PLACEHOLDER, REFUSAL, Fault
from gemd.routing.checks.text import blocks, folded

_OPENING: Final = 240
"""Characters within which a refusal begins; later, «I cannot» is part of an answer."""
_REFUSALS: Final = re.compile(
    # English
    r"\bi(?:'m| am) (?:really |very |so )?sorry,? (?:but |that )?(?:i|as an|i'm|this|"
    r"we)\b[^.]{0,40}"
    r"\b(?:can't|cannot|can not|unable|not able|won't|don't)\b"
    r"|\bi(?:'m| am) (?:unable|not able|not (?:allowed|permitted|comfortable|in a position)) to\b"
    r"|\bi (?:can't|cannot|can not|won't|will not|must decline to|have to decline to) "
    r"(?:help|assist|provide|answer|comply|fulfill|do that|support|complete|create|generate|write|"
    r"engage|discuss|share|offer|give)\b"
    r"|\bas an ai(?: language model| assistant)?,? i (?:can't|cannot|don't|do not|am unable)\b"
    r"|\bi (?:don't|do not) have (?:access to|the ability to|enough information to|the "
    r"capability)\b"
    # German
    r"|\b(?:tut mir leid|entschuldigung|leider),? (?:aber )?(?:ich )?(?:kann|darf)(?: ich)?\b"
    r"[^.]{0,60}\bnicht\b"
    r"|\bich (?:kann|darf) (?:dir |ihnen |diese |dabei |das |darauf )[^.]{0,40}\bnicht "
    r"(?:helfen|beantworten|erfüllen|antworten|nachkommen|unterstützen|weiterhelfen)\b"
    # French
    r"|\b(?:je suis désolé\w*|désolé\w*),? (?:mais )?je ne (?:peux|suis)\b"
    r"|\bje ne (?:peux|suis) (?:malheureusement )?pas (?:en mesure|vous aider|t'aider|répondre|"
    r"fournir|capable)\b"
    # Spanish and Portuguese
    r"|\blo siento,? (?:pero )?no (?:puedo|me es posible)\b"
    r"|\bno puedo (?:ayudar\w*|proporcionar\w*|responder|cumplir|asistir\w*)\b"
    r"|\b(?:desculpe|sinto muito|lamento),? (?:mas )?(?:eu )?não (?:posso|consigo)\b"
    r"|\bnão (?:posso|consigo) (?:ajudar|fornecer|responder|atender)\b"
    # Italian, Dutch
    r"|\bmi dispiace,? (?:ma )?non (?:posso|sono in grado)\b"
    r"|\bnon posso (?:aiutar\w*|fornir\w*|rispondere)\b"
    r"|\b(?:het spijt me|sorry),? (?:maar )?ik kan (?:je |u )?[^.]{0,40}\bniet\b"
    # Russian, Chinese, Japanese
    r"|\b(?:извините|простите|к сожалению),? (?:но )?я не (?:могу|в состоянии)\b"
    r"|\bя не могу (?:помочь|ответить|предоставить|выполнить)\b"
    r"|(?:抱歉|对不起|很遗憾)[,，]?.{0,6}(?:我)?(?:不能|无法)"
    r"|申し訳(?:ありません|ございません)[^。]{0,40}(?:できません|お答えできません|いたしかねます)"
)
_ASKED_REFUSAL: Final = re.compile(
    r"\b(?:refus\w*|declin\w*|apolog\w*|sorry|ablehn\w*|absage\w*|entschuldig\w*|reject\w*|"
    r"say no|write an? (?:email|letter|reply)|translate|role-?play)\b",
    re.IGNORECASE,
)

_GAPS: Final = re.compile(
    r"\[(?:insert|your|enter|add|fill in|name of|company|recipient'?s?|date|placeholder|"
    r"ihr(?:en?)?|dein(?:en?)?|datum|name|votre|nom|su|tu nombre|nombre|fecha)\b[^\[\]\n]{0,60}\]"
    r"(?!\()"
    r"|\blorem ipsum\b"
    r"|<(?:insert|your|enter)[ _-][^<>@\n]{1,60}>"
    r"|\{\{ ?(?:insert|your|name|placeholder)[^{}\n]{0,40}\}\}"
    r"|\b(?:TODO|FIXME|TBD)\b(?!s)"
    r"|\bXX{2,}\b",
    re.IGNORECASE,
)
_CODE_GAPS: Final = re.compile(
    r"(?:#|//|/\*|--)[ ]*(?:TODO|FIXME|your (?:code|logic|implementation) (?:here|goes)|"
    r"implement(?:ation)? (?:this|here|goes here|me)|rest of (?:the|your) (?:code|function)|"
    r"add (?:your|the) \w+ (?:code|logic) here|\.\.\. ?(?:rest|remaining|existing))",
    re.IGNORECASE,
)
_MEANT: Final = re.compile(
    r"template|placeholder|lorem|todo|fixme|tbd|fill[- ]in|blank|vorlage|platzhalter|modèle|"
    r"plantilla|skeleton|stub|boilerplate|form letter|cover letter|bewerbung|"
    r"\[[^\]]{1,40}\]|\{\{|xxx",
    re.IGNORECASE,
)


def refusal(asked: str, answer: str) -> Fault | None:
    """REFUSAL, not severe: the drafter declines or says that it cannot.

    The strong model is worth asking, but it may decline as well, and then the draft was right. Not
    where a refusal is the text that was asked for.
    """
    beginning = folded(answer[: _OPENING * 2])[:_OPENING]
    if not _REFUSALS.search(beginning) or _ASKED_REFUSAL.search(asked[-2000:]):
        return None
    return Fault(REFUSAL, "the answer declines the request", severe=False)


def placeholder(asked: str, answer: str) -> Fault | None:
    """PLACEHOLDER, not severe: something in it is left to be filled in, though nobody asked so.

    A letter to somebody unnamed cannot do without; code that leaves its body out can.
    """
    for block in blocks(answer):
        match = (_CODE_GAPS if block.code else _GAPS).search(block.text)
        # In small letters it is a word of Spanish.
        if match and match[0] != "todo":
            if _MEANT.search(asked[:4000] + asked[-4000:]):
                return None
            gap = " ".join(match[0].split())
            return Fault(PLACEHOLDER, f"the answer leaves «{gap}» to be filled in", severe=False)
    return None
