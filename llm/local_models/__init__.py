"""The local models that ship, a name each; `_transformer` stands for every hub id and folder."""
