"""How alike the texts of two domains are, from their words alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def text_similarity(domains: Mapping[str, Sequence[str]], target: Sequence[str]) -> dict[str, float]:
    """Return the cosine, 0..1, between the mean tf-idf rows of each domain and of a target.

    Document frequencies are counted over all texts given, each text once.

    >>> found = text_similarity({"same": ["a dog ran"], "other": ["the pan fell"]}, ["a dog ran"])
    >>> round(found["same"], 3), found["other"]
    (1.0, 0.0)
    """
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    everything = list(dict.fromkeys([*target, *(text for texts in domains.values() for text in texts)]))
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(everything)

    def centre(texts: Sequence[str]) -> np.ndarray:
        mean = np.asarray(vectors.transform(texts).mean(axis=0)).ravel()
        return mean / max(float(np.linalg.norm(mean)), 1e-12)

    here = centre(target)
    return {name: float(np.clip(centre(texts) @ here, 0.0, 1.0)) for name, texts in domains.items()}
