"""Requests with answers that a reader would be content with, in several languages and forms."""

from __future__ import annotations

from typing import Final

GOOD: Final[tuple[tuple[str, str], ...]] = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Who wrote Faust?", "Johann Wolfgang von Goethe"),
    ("How many legs does a spider have?", "Eight."),
    ("What is 17 * 23?", "17 * 23 = 391"),
    ("Is a tomato a fruit? Answer yes or no.", "Yes"),
    ("Is it safe to eat raw potatoes?", "Not really: raw potatoes contain solanine."),
    ("Hi, how are you?", "I'm doing well, thanks! How can I help you today?"),
    ("thanks!", "You're welcome! 😊"),
    ("Knock knock.", "Who's there?"),
    ("Complete: The early bird catches the", "worm."),
    ("Complete the sentence: I left my keys on the", "kitchen table."),
    ("Which preposition fits: She is fond __ music.", "of"),
    ("What article goes before «apple»?", "an"),
    ("What does HTTP stand for?", "HyperText Transfer Protocol"),
    ("What's the chemical symbol of iron?", "Fe"),
    ("Say hello in Japanese.", "こんにちは (konnichiwa)"),
    ("Translate to German: Where is the station?", "Wo ist der Bahnhof?"),
    ("Translate to French: Where is the station?", "Où est la gare ?"),
    ("Übersetze ins Englische: Ich hätte gern einen Kaffee.", "I would like a coffee, please."),
    ("Wie heißt die Hauptstadt von Österreich?", "Wien"),
    (
        "Was ist der Unterschied zwischen Wetter und Klima?",
        (
            "Wetter beschreibt den Zustand der Atmosphäre an einem Ort zu einer bestimmten Zeit. "
            "Klima ist der Durchschnitt des Wetters über mindestens 30 Jahre."
        ),
    ),
    (
        "Nenne drei Vorteile von Homeoffice.",
        "1. Kein Arbeitsweg\n2. Flexiblere Zeiteinteilung\n3. Mehr Ruhe für konzentrierte Arbeit",
    ),
    (
        "Schreib eine kurze Absage an einen Handwerker.",
        (
            "Sehr geehrter Herr Maier,\n\nvielen Dank für Ihr Angebot. Leider habe "
            "ich mich für einen "
            "anderen Anbieter entschieden.\n\nMit freundlichen Grüßen\nAnna Schulz"
        ),
    ),
    (
        "Pourquoi le ciel est-il bleu ?",
        (
            "Le ciel est bleu parce que l'atmosphère diffuse davantage la lumière "
            "bleue que la lumière "
            "rouge : c'est la diffusion de Rayleigh."
        ),
    ),
    ("Quelle est la capitale de l'Australie ?", "Canberra"),
    (
        "Donne-moi deux idées de repas rapides.",
        "- Une omelette aux champignons avec une salade verte\n- Des pâtes au pesto et aux tomates",
    ),
    (
        "¿Por qué hay estaciones del año?",
        (
            "Porque el eje de la Tierra está inclinado unos 23,5 grados, y por eso cada hemisferio "
            "recibe más luz solar durante una parte del año."
        ),
    ),
    ("¿Cuántos días tiene un año bisiesto?", "Un año bisiesto tiene 366 días."),
    (
        "Qual è la differenza tra espresso e ristretto?",
        (
            "Il ristretto usa la stessa quantità di caffè dell'espresso, ma meno "
            "acqua, quindi è più "
            "concentrato."
        ),
    ),
    ("日本の首都はどこですか?", "日本の首都は東京です。"),
    ("用一句话解释什么是光合作用。", "光合作用是植物利用阳光把二氧化碳和水转化为糖和氧气的过程。"),
    ("Почему небо голубое?", "Потому что воздух рассеивает синий свет сильнее, чем красный."),
    (
        "Write a haiku about autumn.",
        "Leaves drift on the wind\nA quiet path turns golden\nThe last geese depart",
    ),
    (
        "Write a short rhyming poem about the sea.",
        (
            "The sea, the sea, it calls to me,\nThe sea, the sea, so wild and free,\n"
            "It sings of ships and stormy days,\nIt sings of moonlit, silver bays."
        ),
    ),
    (
        "Give me the chorus of a silly song about bananas.",
        (
            "Bananas, bananas, I love you so,\nBananas, bananas, wherever I go,\n"
            "Yellow and mellow and sweet as can be,\nBananas, bananas, for you and for me!"
        ),
    ),
    (
        "Write a Python function that reverses a linked list.",
        (
            "```python\ndef reverse(head):\n    before = None\n    while head:\n"
            "        head.next, before, head = before, head, head.next\n    return before\n```"
        ),
    ),
    ("How do I list all files in a folder with bash?", "Use `ls -la /path/to/folder`."),
    (
        "How do I undo the last git commit?",
        "```bash\ngit reset --soft HEAD~1\n```\nThis keeps your changes staged.",
    ),
    (
        "Write a SQL query for the ten newest orders.",
        "```sql\nSELECT *\nFROM orders\nORDER BY created_at DESC\nLIMIT 10;\n```",
    ),
    (
        "Write a Rust function that returns the longest of two strings.",
        (
            "```rust\nfn longest<'a>(a: &'a str, b: &'a str) -> &'a str {\n"
            "    if a.len() >= b.len() { a } else { b }\n}\n```"
        ),
    ),
    ("Write a regex for a US zip code.", r"^\d{5}(-\d{4})?$"),
    (
        "Return a JSON object with name and age of Ada Lovelace at her death.",
        '{"name": "Ada Lovelace", "age": 36}',
    ),
    (
        "Extract names and dates as JSON: Anna met Ben on 3 May 2021.",
        '```json\n{\n  "names": ["Anna", "Ben"],\n  "dates": ["2021-05-03"]\n}\n```',
    ),
    ("Extract all e-mail addresses: write to a@b.org or c@d.com", "a@b.org, c@d.com"),
    ("Classify the sentiment: I love this phone.", "Positive"),
    ("Classify as spam or not spam: You won a prize!!! Click here", "spam"),
    ("Is this positive, negative or neutral? «It was ok.»", "Neutral"),
    (
        "Compare tea and coffee in a table.",
        "| | Tea | Coffee |\n|---|---|---|\n| Caffeine | low | high |\n| Taste | mild | bitter |",
    ),
    (
        "Summarise: The council met today. It voted 7 to 2 for the new bridge. Work starts in May.",
        "The council approved the new bridge by 7 to 2; work begins in May.",
    ),
    (
        "Fix the grammar: he go to school every days",
        "He goes to school every day.",
    ),
    (
        "Rewrite more politely: send me the report now",
        "Could you please send me the report when you have a moment?",
    ),
    (
        "Make this shorter: I am writing in order to ask whether you might be free on Friday.",
        "Are you free on Friday?",
    ),
    (
        "Write an email to my boss asking for a day off.",
        (
            "Subject: Day off on Friday\n\nHi Sam,\n\nI'd like to take Friday, 12 "
            "June, off. My tasks "
            "will be done by Thursday, and Kim can cover for me.\n\nBest regards,\nAlex"
        ),
    ),
    (
        "Give me three ideas for a birthday present for my mother.",
        (
            "1. **A photo book** with pictures of the last year\n2. **A spa voucher** for two\n"
            "3. **A cooking class** you take together"
        ),
    ),
    (
        "What do I need for pancakes?",
        "- 200 g flour\n- 2 eggs\n- 300 ml milk\n- a pinch of salt\n- butter for the pan",
    ),
    (
        "A shop sells pens at $2. I buy 5 and pay with $20. How much change do I get?",
        "5 pens cost 5 * $2 = $10, so you get $20 - $10 = $10 back.",
    ),
    (
        "Solve x^2 - 5x + 6 = 0.",
        "Factor: (x - 2)(x - 3) = 0, so x = 2 or x = 3.",
    ),
    ("What is the derivative of x^3?", "3x²"),
    ("Convert 100 km/h to m/s.", "100 km/h ÷ 3.6 ≈ 27.8 m/s"),
    (
        "Which is the largest planet?\nA. Mars\nB. Jupiter\nC. Venus",
        "B",
    ),
    (
        "Explain recursion to a child.",
        (
            "Imagine a box inside a box inside a box. To find the toy, you open a "
            "box, and if there is "
            "another box in it, you do the same thing again. Recursion is solving "
            "a problem by solving "
            "a smaller version of the same problem, until it is so small that it is easy."
        ),
    ),
    (
        "What is the difference between TCP and UDP?",
        (
            "**TCP** sets up a connection, resends lost packets and keeps their "
            "order. **UDP** sends "
            "packets without any of that: it is faster, and some may get lost."
        ),
    ),
    (
        "Name the days of the week.",
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    ),
    (
        "Count from 1 to 20.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
    ),
    ("Give me 5 random numbers.", "42, 7, 93, 15, 68"),
    ("List the first ten primes.", "2, 3, 5, 7, 11, 13, 17, 19, 23, 29"),
    ("What is the ISBN prefix?", "978"),
    ("What emoji means love?", "❤️"),
    ("What's a synonym for happy?", "Joyful, content, or cheerful."),
    ("Who sang «Let It Be»?", "The Beatles"),
    ("What band sang «Take On Me»?", "a-ha"),
    ("Is «is» a verb?", "Yes, «is» is a form of the verb «to be»."),
    (
        "What is the is-a relation?",
        "It is a relation between a class and a more general one: a cat is an animal.",
    ),
    ("How do you spell «Mississippi»?", "M-i-s-s-i-s-s-i-p-p-i"),
    ("What do cats say?", "Meow, meow!"),
    (
        "Sing happy birthday.",
        "Happy birthday to you,\nhappy birthday to you,\nhappy birthday, dear friend!",
    ),
    ("Write a greeting card for Christmas.", "Ho ho ho! Merry Christmas and a happy New Year!"),
    (
        "Who were the first three US presidents?",
        "George Washington, John Adams, and Thomas Jefferson",
    ),
    ("What was Hamlet's dilemma?", "To be, or not to be: whether to go on living or to die."),
    ("How did the film end?", "I don't know which film you mean. Could you tell me its title?"),
    ("What is pi to 10 digits?", "3.141592653"),
    ("Wer war Kanzler vor Scholz?", "Angela Merkel"),
    ("Was heißt «of» auf Deutsch?", "von"),
    ("Fill in: the King __ England", "of"),
    ("What is in a for loop?", "The for loop has the in keyword before what it goes over."),
    ("How does the is operator differ from ==?", "The is operator compares identity."),
    ("Why do you like it?", "Just because"),
    ("Which vitamin helps night vision?", "Vitamin A"),
    ("What was he made of?", "of stone and iron"),
    ("Name a movie", "The Good, the Bad and the Ugly"),
    ("Best museums in Paris?", "Le Louvre, le Musée d'Orsay, le Centre Pompidou et le Musée Rodin"),
    ("Which commands are for folders?", "pwd, mkdir, rmdir, ls, cd"),
    ("Ahoj, jak se máš?", "Mám se dobře, díky. Strč prst skrz krk je jazykolam."),
    ("Merhaba, nasılsın?", "Merhaba! İyiyim, teşekkürler. Sen nasılsın?"),
    ("Was soll ich tun?", "Schalte den Rechner aus und wieder ein"),
    ("Wann kommst du?", "Ich komme morgen vorbei und rufe dich an"),
    ("Who let the dogs out?", "Who, who, who, who"),
    ("Vul in: Ik woon __ Amsterdam.", "in"),
)
"""Each is a request and an answer."""
