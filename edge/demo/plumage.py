"""What the demo's birds look like: colours and proportions, one record a kind."""

from __future__ import annotations

from dataclasses import dataclass

from edge.demo.paint import Colour


@dataclass(frozen=True)
class Plumage:
    """One kind of bird; colours are RGB 0-255, lengths in units of the drawing (the bird is about 2 units tall).

    ``coverts`` are the wing's feather rows from shoulder to flight feathers; ``scallop`` is how much lighter the
    edge of each body feather is (0: plain). ``beak_hook`` 1 is a macaw's, 0.6 a small parrot's.
    """

    head: Colour
    nape: Colour
    breast: Colour
    belly: Colour
    back: Colour
    coverts: tuple[Colour, ...]
    flight: Colour
    tail: tuple[Colour, ...]
    beak_upper: Colour
    beak_lower: Colour
    eye: Colour
    legs: Colour = (92, 86, 84)
    face: Colour | None = None
    face_lines: Colour | None = None
    chin: Colour | None = None
    crest: Colour | None = None
    cheek: Colour | None = None
    collar: Colour | None = None
    scallop: float = 0.12
    body: float = 1.0
    head_size: float = 1.0
    beak: float = 1.0
    tail_length: float = 1.0
    tail_width: float = 1.0


_SCARLET, _BLUE, _YELLOW = (212, 32, 34), (28, 84, 178), (250, 196, 38)

PLUMAGES: dict[str, Plumage] = {
    "scarlet_macaw": Plumage(
        head=_SCARLET, nape=(200, 26, 30), breast=(220, 38, 36), belly=(196, 26, 30), back=(190, 24, 28),
        coverts=(_SCARLET, (228, 60, 36), _YELLOW, (252, 206, 52), (88, 168, 76)), flight=_BLUE,
        tail=(_SCARLET, (186, 22, 30), (64, 118, 200)), beak_upper=(240, 226, 204), beak_lower=(38, 36, 38),
        eye=(248, 232, 150), face=(248, 238, 230), face_lines=(214, 150, 140), tail_length=1.2,
    ),
    "blue_and_yellow_macaw": Plumage(
        head=(36, 134, 206), nape=(30, 118, 204), breast=(252, 190, 34), belly=(246, 176, 26), back=(24, 104, 196),
        coverts=((34, 130, 212), (28, 116, 204), (24, 104, 196), (36, 122, 206), (22, 92, 182)), flight=(26, 66, 150),
        tail=((30, 104, 196), (22, 84, 172), (250, 184, 30)), beak_upper=(40, 38, 42), beak_lower=(34, 32, 36),
        eye=(240, 226, 140), face=(250, 246, 238), face_lines=(40, 60, 50), chin=(36, 50, 44), cheek=None,
        tail_length=1.15,
    ),
    "cockatoo": Plumage(
        head=(250, 249, 244), nape=(246, 244, 238), breast=(252, 250, 246), belly=(244, 242, 236), back=(240, 238, 232),
        coverts=((250, 249, 246), (246, 244, 240), (250, 248, 244), (242, 240, 234), (248, 246, 240)),
        flight=(238, 235, 226), tail=((246, 244, 238), (250, 244, 214), (236, 233, 224)), beak_upper=(58, 56, 58),
        beak_lower=(46, 44, 46), eye=(40, 28, 22), legs=(78, 76, 78), crest=(250, 216, 60), cheek=(252, 240, 186),
        scallop=-0.09, body=1.06, beak=0.9, tail_length=0.5, tail_width=1.4,
    ),
    "african_grey": Plumage(
        head=(168, 172, 178), nape=(150, 154, 162), breast=(164, 168, 174), belly=(182, 186, 190), back=(124, 128, 138),
        coverts=((138, 142, 152), (128, 132, 142), (118, 122, 132), (110, 114, 124), (102, 106, 116)),
        flight=(74, 76, 86), tail=((204, 30, 34), (184, 22, 30), (216, 48, 44)), beak_upper=(36, 34, 38),
        beak_lower=(30, 28, 32), eye=(244, 230, 140), face=(232, 232, 230), face_lines=None, scallop=0.22,
        body=1.04, beak=0.85, tail_length=0.36, tail_width=1.15,
    ),
    "lorikeet": Plumage(
        head=(44, 66, 176), nape=(52, 78, 186), breast=(242, 96, 30), belly=(34, 58, 150), back=(50, 160, 60),
        coverts=((58, 170, 66), (46, 156, 58), (64, 176, 70), (40, 146, 54), (52, 164, 62)), flight=(30, 118, 50),
        tail=((48, 150, 58), (60, 160, 62), (150, 190, 50)), beak_upper=(226, 62, 38), beak_lower=(208, 48, 32),
        eye=(214, 52, 34), collar=(186, 222, 70), scallop=0.16, body=0.92, head_size=0.92, beak=0.72,
        tail_length=0.72, tail_width=0.72,
    ),
    "eagle": Plumage(
        head=(250, 248, 242), nape=(240, 236, 226), breast=(82, 58, 42), belly=(70, 50, 38), back=(66, 46, 34),
        coverts=((92, 66, 48), (84, 60, 44), (74, 52, 40), (66, 46, 36), (60, 42, 34)), flight=(42, 30, 26),
        tail=((246, 244, 238), (236, 232, 224), (228, 224, 214)), beak_upper=(248, 192, 40), beak_lower=(232, 170, 34),
        eye=(250, 224, 110), legs=(240, 186, 44), scallop=0.2, body=1.14, head_size=0.86, beak=0.9,
        tail_length=0.42, tail_width=1.3,
    ),
}  # fmt: skip
