"""What models are asked to read when two of them are compared, and to answer when one is tried.

Written for this purpose: prose in several languages and scripts, code, tables of numbers, and
turns of a conversation, because a quantization damages rare scripts and long numbers first. None of
it is from a book or a website, so no model knows it by heart. Changing it changes every figure in
DESIGN.md.
"""

from __future__ import annotations

from typing import Final

Turns = tuple[str, ...]
"""User and assistant in turn, the user first."""

CONVERSATIONS: Final[tuple[Turns, ...]] = (
    (
        (
            "My neighbour keeps bees on a flat roof and says they are no trouble. What does a "
            "hive actually need over a year?"
        ),
        (
            "Mostly attention at the right moments. In early spring the colony is small and "
            "hungry: look for stores, and feed sugar syrup if a frame feels light. By late April "
            "the queen lays more than a thousand eggs a day, and the beekeeper adds boxes so that "
            "there is always room above the brood. If space runs out, half of the bees leave with "
            "the old queen, which is beautiful to watch and expensive. Honey is taken off in "
            "July. Then the mites have to be counted; a sheet of white card under the floor shows "
            "how many fall in a day, and more than ten is a reason to treat at once. In autumn "
            "the entrance is narrowed against mice, and from November on the hive should be left "
            "alone, apart from lifting one side a little to feel its weight. A roof adds two "
            "worries: wind, which a strap and a heavy slab will answer, and water, because "
            "thirsty bees find the nearest balcony."
        ),
        "And how much time is that in a week?",
        (
            "Half an hour from April to August, next to nothing in winter, and one long weekend "
            "when the honey is spun and every door handle in the house sticks."
        ),
    ),
    (
        "Write a small Python class for a bank account with a history, and explain one choice.",
        (
            "```python\n"
            "from dataclasses import dataclass, field\n"
            "from decimal import Decimal\n"
            "\n"
            "\n"
            "@dataclass\n"
            "class Account:\n"
            "    owner: str\n"
            '    balance: Decimal = Decimal("0.00")\n'
            "    history: list[tuple[str, Decimal]] = field(default_factory=list)\n"
            "\n"
            "    def deposit(self, amount: Decimal) -> None:\n"
            "        if amount <= 0:\n"
            '            raise ValueError(f"cannot deposit {amount}")\n'
            "        self.balance += amount\n"
            '        self.history.append(("deposit", amount))\n'
            "\n"
            "    def withdraw(self, amount: Decimal) -> None:\n"
            "        if amount > self.balance:\n"
            '            raise ValueError(f"{self.owner} has only {self.balance}")\n'
            "        self.balance -= amount\n"
            '        self.history.append(("withdraw", amount))\n'
            "```\n"
            "Amounts are `Decimal` and not `float`, because 0.1 + 0.2 is 0.30000000000000004 in "
            "binary floating point, and a bank that is a hair off is so a million times a day."
        ),
    ),
    (
        "Erkläre mir, warum alte Fenster im Winter innen beschlagen.",
        (
            "Warme Luft trägt mehr Wasserdampf als kalte. In der Küche wird gekocht, im Bad "
            "geduscht, und nachts gibt jeder Schläfer einen halben Liter Wasser ab. Streicht "
            "diese Luft an einer einfachen Scheibe entlang, so kühlt sie dort unter ihren "
            "Taupunkt, und was sie nicht mehr halten kann, bleibt als feiner Film auf dem Glas. "
            "Bei zwanzig Grad und fünfzig Prozent Luftfeuchte liegt der Taupunkt etwa bei neun "
            "Grad; eine alte Scheibe ist bei Frost viel kälter. Ein doppeltes Fenster hält die "
            "innere Scheibe warm, darum bleibt sie trocken. Wer das Haus nicht umbauen will, "
            "lüftet dreimal am Tag fünf Minuten kräftig, statt das Fenster stundenlang zu kippen: "
            "Die Luft wird ausgetauscht, ehe die Wände auskühlen."
        ),
    ),
    (
        (
            "Put these readings into a table and tell me which station is odd: A 12.4, 12.9, "
            "13.1, 12.7; B 11.8, 12.2, 19.6, 12.0; C 12.1, 12.3, 12.6, 12.5."
        ),
        (
            "| station | 06:00 | 10:00 | 14:00 | 18:00 | mean | range |\n"
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            "| A | 12.4 | 12.9 | 13.1 | 12.7 | 12.775 | 0.7 |\n"
            "| B | 11.8 | 12.2 | 19.6 | 12.0 | 13.900 | 7.8 |\n"
            "| C | 12.1 | 12.3 | 12.6 | 12.5 | 12.375 | 0.5 |\n"
            "\n"
            "Station B is odd. Its reading at 14:00 is 19.6, more than seven degrees above the "
            "three others of the same station, while A and C move by less than one degree. "
            "Without it, the mean of B would be 12.0. Either the sun fell on the sensor or "
            "somebody typed a 9 for a 2; the raw log of the logger, number 0047-2215, will tell "
            "which. Until then I would mark the value and leave it out of the monthly mean, which "
            "then is (12.775 + 12.0 + 12.375) / 3 = 12.383."
        ),
    ),
    (
        "Cuéntame cómo era el mercado de tu pueblo cuando eras niña.",
        (
            "Los jueves, antes de que saliera el sol, ya se oían las ruedas de los carros. Mi "
            "abuela llevaba dos cestas: una vacía, para la fruta, y otra con huevos, que cambiaba "
            "por aceite. El pescadero gritaba más que nadie, aunque el mar quedaba a ochenta "
            "kilómetros y todos sabíamos que la merluza había dormido en hielo. A las once "
            "llegaba el afilador con su silbato, y los niños corríamos detrás de él por la plaza. "
            "Lo que más recuerdo es el olor: pan, cuero mojado, melones abiertos y, cuando "
            "llovía, la tierra de las macetas. A la una no quedaba nada, solo hojas de col en el "
            "suelo y algún perro."
        ),
        "¿Y todavía existe?",
        "Existe, pero es más pequeño, y los huevos tienen fecha.",
    ),
    (
        "请用简单的话说明,为什么海水是咸的,而河水不是。",
        (
            "河水其实也带着一点盐,只是很少,尝不出来。雨水落在山上,慢慢溶解岩石里的矿物,再流进河里,最"
            "后到达大海。海面上的水被太阳晒成水汽,飘回天空,可是盐不会跟着走,只能留在海里。几亿年过去,"
            "一点一点积累起来,海水就变咸了。每一千克海水里大约有三十五克盐。有些湖泊没有出口,也会这样变咸,比如死海。至于河流,水一直在流动,盐还没有来得及积累就被带走了。"
        ),
        "А теперь то же самое по-русски, коротко.",
        (
            "Реки всё время смывают с гор немного соли и несут её в море. Вода из моря испаряется "
            "и возвращается на землю дождём, а соль остаётся. За сотни миллионов лет её "
            "накопилось около тридцати пяти граммов на каждый килограмм воды."
        ),
    ),
    (
        (
            "Answer as JSON only: three trains, each with number, from, to, departure and minutes "
            "of delay."
        ),
        (
            '{"trains": [\n'
            '  {"number": "RE 4711", "from": "Oldbridge", "to": "Harbour East", "departure": '
            '"2031-03-14T07:52:00Z", "delay_minutes": 0},\n'
            '  {"number": "IC 209", "from": "Harbour East", "to": "Stone Valley", "departure": '
            '"2031-03-14T08:15:30Z", "delay_minutes": 12},\n'
            '  {"number": "S 8", "from": "Mill Lane", "to": "Oldbridge", "departure": '
            '"2031-03-14T08:20:00Z", "delay_minutes": 3}\n'
            "]}"
        ),
        "Now a shell line that prints the numbers of the late ones from trains.json.",
        (
            "jq -r '.trains[] | select(.delay_minutes > 0) | .number' trains.json | sort\n"
            "This reads the list, keeps what has a delay above zero, and prints one number on "
            "each line: IC 209 and S 8. If the file can lack the field, write `(.delay_minutes // "
            "0) > 0`."
        ),
    ),
    (
        "I have two hours, a rucksack and rain. Plan a walk from the station and back.",
        (
            "Leave the station by the south door and follow the tram line for ten minutes, as far "
            "as the brick church with the crooked weathercock. Behind it a gravel path goes down "
            "to the river. Turn left there and keep the water on your right; the trees are old "
            "and close, so the rain will reach you only as a sound. After about two kilometres "
            "there is an iron footbridge. Cross it, climb the ninety-one steps of the old quarry, "
            "and stop at the shed on top, which has a bench, a roof, and the best view of the "
            "town when there is one. Going back, take the road along the allotments: it is paved, "
            "lit after five, and passes a bakery that closes at six. The whole round is 6.3 "
            "kilometres with 110 metres of climbing, an hour and a half at an easy pace, which "
            "leaves half an hour for tea."
        ),
    ),
)
"""Each is a window of its own. The first ones are read where time is short, so they differ."""

QUESTIONS: Final[tuple[str, ...]] = (
    "What is the capital of France?",
    "What is two plus two?",
    "Why is the sky blue?",
)
"""What a model has to give a sound answer to; the answers are not judged by what they say."""
