"""Texts whose continuation repeats them, for a small model that has to be shown what is wanted."""

_STORY = (
    "Anna left the harbour at six in the morning. The sea was calm and the sky was grey. She had two baskets of bread "
    "in the boat, a bottle of water and an old map of the islands. At noon the wind came from the north, and she set "
    "the small sail. By evening Anna could see the lighthouse, and an hour later she tied the boat to the pier."
)

EDIT = (
    "The first draft:\n\n"
    f"{_STORY}\n\n"
    "The second draft, in which Anna is called Maria and everything else is the same, word for word:\n\n"
    "Maria left the harbour at six in the morning."
)

EXTRACT = (
    "The text:\n\n"
    f"{_STORY}\n\n"
    "The sentences of the text, copied one by one into a list:\n\n"
    "1. Anna left the harbour at six in the morning.\n"
    "2. The sea was calm and the sky was grey.\n"
    "3. She had"
)

_FUNCTIONS = '''def area_of_rectangle(width, height):
    """Returns the area of a rectangle."""
    if width < 0 or height < 0:
        raise ValueError("A side must not be negative.")
    return width * height


def area_of_circle(radius):
    """Returns the area of a circle."""
    if radius < 0:
        raise ValueError("A radius must not be negative.")
    return math.pi * radius * radius
'''

CODE = (
    f"# geometry.py\n\n{_FUNCTIONS}\n\n"
    "# geometry_typed.py: the same functions, with type hints\n\n"
    "def area_of_rectangle(width: float, height: float) -> float:\n"
)
