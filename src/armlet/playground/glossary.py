"""The words of the page, in plain English. docs/howto/explore.md has the same glossary."""

INTRODUCTION = (
    "A language model is a stack of layers. In each layer, a gate decides for every word how much of each feature "
    "passes. Here you change the gate's values while the model runs, and see what that does: this is ARM. Nothing is "
    "trained, and nothing leaves this computer."
)

POLICY_CHOICES = (
    ("Outward: push small values away from zero", "outward"),
    ("Inward: pull large values towards the centre", "inward"),
    ("Transport: one peak, in the same order", "transport"),
    ("Cut: set small values to zero", "cut"),
)

KNOB_HELP = {
    "band": ("band", "How far from zero a value still counts as small."),
    "ceiling": ("ceiling", "How far out new values may go: 1 is as far as the largest."),
    "share_low": ("share, lowest", "At least this share of the values moves, however wide the band."),
    "share_high": ("share, highest", "At most this share of the values moves."),
    "proportion": ("proportion (0: off)", "The share of values that moves, in place of the band."),
    "write": ("write", "Whether a new value replaces the old one (the released code), or is added to it (the paper)."),
    "ceiling_of": ("ceiling_of", "Whether the ceiling looks at the values, or at their sizes without sign."),
    "knee": ("knee", "The share of values that stays as it is; larger ones are pulled in."),
    "limit": ("limit (0: off)", "A fixed size beyond which values are pulled in, in place of the knee."),
    "side": ("side", "Whether values are pulled in on both sides, or above only."),
    "curve": ("curve", "log pulls in gently, clip stops at the limit, tanh bends every value."),
    "spread": ("spread", "How wide the new peak is."),
    "threshold": ("threshold (0: off)", "A fixed size up to which values are set to zero, in place of the band."),
    "strength": ("strength", "How far values move: 0 not at all, 1 all the way."),
}
"""The label and the help of each knob, in plainer words than `SETTING_MEANINGS`."""

MAIN_KNOBS = ("band", "ceiling", "knee", "limit", "curve", "spread", "strength")
"""The knobs that are always in view; the others are below 'More settings'."""

GLOSSARY = {
    "token": "A piece of text that the model reads and writes: a word, a part of one, or a sign.",
    "layer": "One step of the model: attention, which looks at other tokens, and an MLP, which looks at one.",
    "channel": "One of the numbers that a layer computes for a token; a gate has hundreds or thousands.",
    "gate": "A value for each channel of a token; it is multiplied with the output of up, and so lets it pass, or not.",
    "up": "The values that the gate lets pass, or not.",
    "ARM": "Activation Redistribution Module: it changes the gate's values before the product with up.",
    "policy": "The rule by which ARM moves values: Outward, Inward, Transport or Cut.",
    "moved": "The values that a policy changed.",
    "placebo": "A control that should do nothing, or only add noise. If it does as much, the rule is not what acts.",
    "filler": "Tokens without a meaning, such as slashes, that are inserted into a text.",
    "near zero": "Values closer to zero than a width that depends on the spread of the token's values.",
    "KL": "Kullback-Leibler divergence: how different two distributions are; 0 where they are equal.",
    "kurtosis": "How much of the spread comes from few far values; 0 for a bell curve.",
}
