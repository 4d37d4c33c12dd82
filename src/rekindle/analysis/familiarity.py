"""How much a picture looks like those that a network was trained on, so that it can say "none of these" instead of the nearest class.

Features of strangers lie far from all training pictures', though the logits may be as large as ever (Sun et al., Out-of-Distribution
Detection with Deep Nearest Neighbors, ICML 2022). The confidence counts a little, for pictures of the classes that are too close to call.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import normalize

from rekindle.digests import DIGEST, write_with_digest
from rekindle.errors import Unreadable, UserError
from rekindle.models.weights import read_own_weights
from rekindle.records import WEIGHTS

NEAREST = 5
CONFIDENCE = 0.03  # Weight of the logarithm of the largest probability beside a cosine.
FILE = "familiarity.safetensors"


@dataclass(frozen=True)
class Familiarity:
    """What a run keeps of its own pictures to tell strangers by.

    Attributes:
        features: (N, D) float16, of training pictures, each of length 1.
        own: (M,) float64, how familiar validation pictures are, ascending.
    """

    features: Tensor
    own: Tensor

    @classmethod
    def learn(cls, training: Tensor, validation: Tensor, probabilities: Tensor) -> "Familiarity":
        """From features (N, D) of training pictures, and features (M, D) and probabilities (M, C) of validation pictures.

        Returns:
            What tells the run's own pictures from strangers.
        """
        features = _directions(training).half()
        return cls(features, familiarity(features, validation, probabilities).sort().values)

    def of(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """(B,) of pictures with features (B, D) and probabilities (B, C).

        Returns:
            (B,) numbers; the higher, the more familiar.
        """
        return familiarity(self.features, features, probabilities)

    def threshold(self, share: float) -> float:
        """The familiarity up to which a picture is unsure, if at most a share of the run's own pictures may be.

        Of M + 1 pictures of one kind each is equally likely to rank k-th, so a new one lies at or below the k-th validation picture
        with probability k / (M + 1) (Vovk et al., 2005). With few pictures that is above the share already for the first of them.

        Returns:
            The familiarity of one of the validation pictures.
        """
        return float(self.own[self._rank(share) - 1])

    def expected(self, share: float) -> float:
        """Which share of the run's own pictures are expected to be unsure at that threshold.

        Returns:
            A share from 0 to 1.
        """
        return self._rank(share) / (len(self.own) + 1)

    def _rank(self, share: float) -> int:
        return min(max(1, math.floor(share * (len(self.own) + 1) + 1e-9)), len(self.own))

    def write(self, folder: Path) -> None:
        """Into a run folder."""
        tensors = {"features": self.features.contiguous(), "own": self.own.contiguous()}
        write_with_digest(folder / FILE, save(tensors, {**WEIGHTS.metadata(), **DIGEST}))

    @classmethod
    def read(cls, folder: Path) -> "Familiarity":
        """From a run folder.

        Returns:
            What `learn` gave when the run ended.

        Raises:
            UserError: If it has none.
            Unreadable: If the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            raise UserError(
                f"{folder} cannot tell which pictures are unsure (it has no {FILE}): it was trained without validation pictures, in a "
                "study, or by an earlier rekindle; leave --unsure out, or train it again by `rekindle fit`."
            )
        tensors = read_own_weights(path, "train the run again")
        features, own = tensors.get("features"), tensors.get("own")
        if features is None or own is None or features.ndim != 2 or own.ndim != 1 or not len(features) or not len(own):
            raise Unreadable(f"{path} is damaged (it holds no features with their familiarity); train the run again.")
        return cls(features, own)


def familiarity(known: Tensor, features: Tensor, probabilities: Tensor) -> Tensor:
    """(B,) mean cosine between a picture and the nearest training pictures, plus the weighted logarithm of its confidence.

    Args:
        known: (N, D), of length 1.
        features: (B, D).
        probabilities: (B, C).

    Returns:
        (B,) numbers, at most 1.
    """
    cosines = _directions(features) @ known.double().T
    near = cosines.topk(min(NEAREST, len(known)), dim=1).values.mean(1)
    return near + CONFIDENCE * probabilities.double().amax(1).log()


def _directions(features: Tensor) -> Tensor:
    return normalize(features.double(), dim=1)
