"""The evaluate job: predictions in, a report out."""

from dataclasses import asdict

from photoz.artifacts import Artifact, Destination, Draft, Outcome
from photoz.errors import BadInput
from photoz.evaluate.chain import Chain
from photoz.evaluate.settings import EvaluateSettings

RECIPE = 3  # raise it when the same settings come to give other bytes
_PIECE = "report"


def evaluate_predictions(predictions: Artifact, settings: EvaluateSettings, dest: Destination) -> Outcome:
    """See photoz.evaluate.evaluate_predictions."""
    if predictions.ref.kind != "predictions":
        raise BadInput(f"{predictions.ref}: expected an artifact of kind predictions")
    chain = Chain.of(predictions)
    # The refs are printed in the report, so they decide its bytes as the settings do.
    decides = asdict(settings) | {"refs": [str(artifact.ref) for artifact in chain.artifacts()]}
    with Draft.begin(dest, kind="report", recipe=RECIPE, settings=decides, inputs=[predictions]) as draft:
        if draft.published:
            return draft.published
        from photoz.evaluate.making import make_report  # scikit-learn and matplotlib take seconds to import

        for piece in draft.todo([_PIECE]):
            files, facts = make_report(chain, settings)
            draft.finish_piece(piece, [draft.put(name, data) for name, data in files.items()], facts)
        if not draft.finish_slice():
            return draft.partial()
        return draft.commit(draft.receipts()[0].facts)
