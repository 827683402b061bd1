"""The words and phrasings from which the demo's questions are made."""

from __future__ import annotations

NAMES = ["Anna", "Ben", "Carl", "Dora", "Emma", "Hugo", "Leo", "Nina"]
THINGS = [
    *("cup", "kite", "ball", "hat", "book", "drum", "lamp", "coin"),
    *("ring", "map", "bell", "boat", "key", "box", "tree", "star"),
]
COLOURS = ["red", "blue", "green", "black", "white", "pink"]
PLACES = ["garden", "kitchen", "park", "school", "shop", "barn"]
LETTER_WORDS = [
    *THINGS,
    *("red", "blue", "pink", "park", "shop", "barn", "fish"),
    *("bird", "cat", "dog", "pen", "bag", "sock", "moon"),
]

OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "up": "down",
    "fast": "slow",
    "day": "night",
    "open": "closed",
    "wet": "dry",
    "old": "new",
    "hard": "soft",
    "full": "empty",
    "light": "dark",
    "happy": "sad",
    "long": "short",
    "early": "late",
    "left": "right",
    "good": "bad",
}
PLURALS = {
    "cup": "cups",
    "ball": "balls",
    "hat": "hats",
    "book": "books",
    "box": "boxes",
    "leaf": "leaves",
    "fish": "fish",
    "mouse": "mice",
    "child": "children",
    "tooth": "teeth",
    "foot": "feet",
    "man": "men",
    "bird": "birds",
    "key": "keys",
    "horse": "horses",
    "sheep": "sheep",
}
NATURAL_COLOURS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "blood": "red",
    "the sky": "blue",
    "milk": "white",
    "a leaf": "green",
    "wood": "brown",
    "a rose": "red",
    "smoke": "grey",
    "the sea": "blue",
    "a pig": "pink",
}
SOUNDS = {
    "dog": "woof",
    "cat": "meow",
    "cow": "moo",
    "duck": "quack",
    "sheep": "baa",
    "bee": "buzz",
    "snake": "hiss",
    "frog": "croak",
    "lion": "roar",
    "pig": "oink",
}
KINDS_OF_THING = {
    "dog": "animal",
    "cat": "animal",
    "horse": "animal",
    "cow": "animal",
    "apple": "fruit",
    "pear": "fruit",
    "plum": "fruit",
    "cherry": "fruit",
    "red": "colour",
    "blue": "colour",
    "pink": "colour",
    "oak": "tree",
    "pine": "tree",
    "three": "number",
    "seven": "number",
    "Monday": "day",
    "Friday": "day",
}
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ORDINALS = ("first", "second", "third")

OPENINGS = (
    "Please answer: {q}",
    "I have a question. {q}",
    "Hello! {q}",
    "Tell me: {q}",
    "Quick question: {q}",
)

# Lists stand at the end of a question: "the second word" is then a place after the colon, which a
# small model finds more easily than one in mid-sentence.
SCENES = (
    "{name} has a {colour} {thing} in the {place}.",
    "In the {place} {name} sees a {colour} {thing}.",
    "There is a {colour} {thing} in the {place}. It belongs to {name}.",
    "I was in the {place} and found a {thing}. It was {colour}. Now {name} has it.",
)

PHRASINGS: dict[str, tuple[str, ...]] = {
    "nth": (
        "What is the {n} word of this list: {words}?",
        "Say the {n} word: {words}.",
        "Which word is {n} in the list {words}?",
        "Write the {n} word of {words}.",
        "Give me the {n} one of the words {words}.",
    ),
    "repeat": (
        "Repeat these words: {words}.",
        "Say this again: {words}.",
        "Copy the words {words}.",
        "Write once more: {words}.",
    ),
    "reverse": (
        "Write these words in reverse order: {words}.",
        "Say this backwards, word by word: {words}.",
        "Reverse the list {words}.",
        "Turn the order around: {words}.",
    ),
    "pick": (
        "Which of these is a {kind}: {words}?",
        "Find the {kind}: {words}.",
        "Which word is a {kind}: {words}?",
        "Pick the {kind} from {words}.",
    ),
    "is_a": ("Is {word} a {kind}?", "Does {word} mean a {kind}?", "Yes or no: {word} is a {kind}."),
    "count": (
        "How many words are in this list: {words}?",
        "Count the words: {words}.",
        "How long is the list {words}?",
    ),
    "scene_name": ("Who is named here?", "Which person is it?", "Tell me the name."),
    "scene_thing": ("Which thing is it?", "What thing is named here?", "Tell me the thing."),
    "scene_colour": ("What colour is the {thing}?", "Tell me the colour.", "Which colour is it?"),
    "scene_place": ("Where is the {thing}?", "Which place is it?", "Tell me the place."),
    "colour": ("What colour is the {thing}?", "Which colour has the {thing}?"),
    "larger": (
        "Which number is larger: {a} or {b}?",
        "Pick the larger number: {a} or {b}.",
        "Which is more: {a} or {b}?",
        "Write the bigger one of {a} or {b}.",
    ),
    "smaller": (
        "Which number is smaller: {a} or {b}?",
        "Pick the smaller number: {a} or {b}.",
        "Which is less: {a} or {b}?",
        "Write the lesser one of {a} or {b}.",
    ),
    "next": (
        "What number comes after {a}?",
        "Count one up from {a}.",
        "Which number follows {a}?",
        "Write the next number after {a}.",
    ),
    "add": (
        "What is {a} plus {b}?",
        "Add {a} and {b}.",
        "How much is {a} + {b}?",
        "Give the sum of {a} and {b}.",
    ),
    "opposite": (
        "What is the opposite of {word}?",
        "Give the opposite of {word}.",
        "Which word means the reverse of {word}?",
        "{word} is one thing. What is its opposite?",
    ),
    "plural": (
        "What is the plural of {word}?",
        "One {word}, two what?",
        "Write the plural of {word}.",
        "How do we call more than one {word}?",
    ),
    "thing_colour": (
        "What colour is {word}?",
        "Name the colour of {word}.",
        "Which colour do you see on {word}?",
    ),
    "sound": (
        "What sound does a {word} make?",
        "What does a {word} say?",
        "Write the sound of a {word}.",
    ),
    "category": (
        "What kind of thing is {word}?",
        "Is {word} an animal, a fruit, a colour, a tree, a number or a day?",
        "Sort this word: {word}.",
    ),
    "day": (
        "Which day comes after {word}?",
        "What day follows {word}?",
        "Today is {word}. What is tomorrow?",
    ),
    "spell": (
        "Spell the word {word}.",
        "How do you spell {word}?",
        "Write {word} letter by letter.",
    ),
    "letter": (
        "What is the first letter of {word}?",
        "Which letter does {word} begin with?",
        "The word {word} starts with which letter?",
    ),
}
