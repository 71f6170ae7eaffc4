# examples/own_model.py
"""A local model of one's own: naive Bayes on 3-mers teaches, their shares are the features."""

from sklearn.naive_bayes import MultinomialNB

import llm_qfl


class NaiveBayes:
    """Multinomial naive Bayes."""

    def __init__(self, alpha=0.01):
        self.alpha = alpha
        self.words = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]

    def fit(self, rows, labels, validation_rows, validation_labels, classes, seed):
        """Learn from a site's rows; it need not hold every class."""
        self.bayes = MultinomialNB(alpha=self.alpha)
        self.bayes.partial_fit(self.embed(rows), labels, classes=range(classes))

    def soft_labels(self, rows):
        """Return probabilities, (rows, classes)."""
        return self.bayes.predict_proba(self.embed(rows))

    def embed(self, rows):
        """Return features, (rows, 64); nothing here is fitted, so they agree everywhere."""
        return [[row.count(word) / len(row) for word in self.words] for row in rows]


print(llm_qfl.run(model=NaiveBayes, features={"kind": "embedding"}, rounds=2, train_rows=200))
