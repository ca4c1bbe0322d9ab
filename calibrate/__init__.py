"""The workstation: from folders of pictures to a gate file.

    find_pictures(folders) -> extract(engine, pictures) -> Samples -> fit_gate(samples, recipe) -> save_gate

A recipe (``calibrate.seed``, ``calibrate.robust``) fits members on features; everything that is calibrated after that
(join, probability, p-value, metrics) sees only scores of pictures that the scoring member was not fitted on, with
folds that keep a folder together (``calibrate.folds``). All of it is seeded: the same pictures give the same file.
"""
