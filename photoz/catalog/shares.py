"""How large the splits are to be."""

from dataclasses import dataclass

from photoz.errors import BadInput

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class SplitFractions:
    """Shares of the galaxies that train, validate and test; they add up to 1."""

    train: float = 0.7
    val: float = 0.1
    test: float = 0.2

    @classmethod
    def parse(cls, text: str) -> "SplitFractions":
        """From `train,val,test`, such as `0.7,0.1,0.2`; BadInput otherwise."""
        try:
            train, val, test = (float(part) for part in text.split(","))
        except ValueError:
            raise BadInput(f"--splits {text!r}: expected three shares, train,val,test, such as 0.7,0.1,0.2") from None
        if not (min(train, val, test) > 0 and abs(train + val + test - 1) < 1e-6):
            raise BadInput(f"--splits {text!r}: expected three shares above 0 that add up to 1, such as 0.7,0.1,0.2")
        return cls(train, val, test)

    def of(self, split: str) -> float:
        """The share of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]
