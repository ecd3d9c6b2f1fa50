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

_CRANE = (
    "Anna Berg: the new crane arrives on 12 June and has to be tested for two days before it may be used."
)

EXTRACT = (
    "Meeting of the harbour council, 3 May. Present: Anna Berg, Jonas Lind, Mia Holm.\n"
    f"{_CRANE}\n"
    "Jonas Lind: the northern pier needs 40 new planks; the price is 3,200 crowns, and the work takes a week.\n"
    "Mia Holm: the ferry will come at 7.15 instead of 7.30 from 1 July on, because the school begins earlier.\n\n"
    f"Extract from the text above, copied exactly:\n\n- {_CRANE}\n- Jonas Lind:"
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
    "def area_of_rectangle(width: float, height: float) -> float:"
)
