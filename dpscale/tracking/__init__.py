"""Where figures and artefacts are recorded."""
