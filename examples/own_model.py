# examples/own_model.py
"""A local model of one's own: naive Bayes on hashed 4-mers teaches, its counts are features."""

import numpy as np
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.naive_bayes import MultinomialNB

import llm_qfl


class NaiveBayes:
    def __init__(self, letters=4, width=64):
        how = {"analyzer": "char", "ngram_range": (letters, letters), "alternate_sign": False}
        self.counts = HashingVectorizer(n_features=width, norm="l1", **how)

    def fit(self, rows, labels, validation_rows, validation_labels, classes, seed):
        self.bayes = MultinomialNB(alpha=0.01).fit(self.embed(rows), labels)
        self.classes = classes

    def soft_labels(self, rows):  # (rows, classes); a site need not hold every class
        found = np.full((len(rows), self.classes), 1e-6)
        found[:, self.bayes.classes_] = self.bayes.predict_proba(self.embed(rows))
        return found / found.sum(axis=1, keepdims=True)

    def embed(self, rows):  # (rows, width), the same on every node: nothing here is fitted
        return self.counts.transform(rows).toarray()


few = {"clients": 2, "rounds": 2, "data": {"train_rows": 120, "test_rows": 60, "server_rows": 40}}
print(llm_qfl.run(few, model=NaiveBayes, features={"kind": "embedding"}, agent="all", quiet=True))
