"""The ClientApp: one thin handler a message kind; memory of a site across rounds."""
