"""Frequent words of seven languages in Latin letters, chosen to be telling.

What two of the languages share counts for both, so that neither of them wins by it.
"""

from __future__ import annotations

from typing import Final

STOPWORDS: Final = {
    language: frozenset(text.split())
    for language, text in {
        "en": "the and of to is in that it for was on are with as his they be at have this from or "
        "had by but what some we can out were all your when up use how said an each she which do "
        "their if will other about many then them would like so these her him has more could my "
        "than been who its now did get come made may you not there because should",
        "de": "der die das und ist nicht ein eine einen einem einer zu den dem des mit sich auf "
        "für von im auch es an werden wird aus er hat dass sie nach bei um am sind noch wie über "
        "so zum zur haben nur oder aber vor bis mehr durch man sein wurde wenn ich kann du wir ihr "
        "als diese dieser dieses sehr was wo war gegen unter zwischen",
        "fr": "le la les de des du un une et est en que qui dans pour pas au aux par sur ne se ce "
        "cette ces il elle nous vous ils elles sont avec plus son sa ses mais ou comme tout leur "
        "être fait été aussi même très bien peut si où donc sans entre sous je tu mon c'est "
        "d'un d'une l'on qu'il n'est",
        "es": "el la los las de del un una y es en que por para con no se lo su al como más pero "
        "sus le ya este esta sí porque entre cuando muy sin sobre ser también me hasta hay donde "
        "quien desde todo nos durante todos uno les ni contra otros ese eso son fue está han "
        "puede yo tú qué cómo",
        "it": "il lo la i gli le di del della dei delle un una uno e è in che per non con si da "
        "dal dalla nel nella sono come più ma anche al alla suo sua loro questo questa essere ha "
        "hanno era molto tra fra se ci o quando dove chi cosa perché ogni io tu noi sul sulla",
        "pt": "o a os as de do da dos das um uma e é em no na nos nas que por para com não se mais "
        "como mas ao à pelo pela seu sua ou ser são foi muito também já está isso este esta entre "
        "quando onde até eu você nós eles elas há tem porque sobre depois sem",
        "nl": "de het een en van is in dat op te zijn voor met niet aan er die ook als bij door "
        "naar om uit maar nog wordt worden kan heeft hebben wat over dan deze dit of zo meer "
        "tot onder tegen ik je jij wij zij hij haar hun geen wel veel waar omdat tussen",
    }.items()
}

LANGUAGES: Final = {
    word: tuple(language for language, known in STOPWORDS.items() if word in known)
    for word in frozenset().union(*STOPWORDS.values())
}
"""The languages that a word is frequent in."""
