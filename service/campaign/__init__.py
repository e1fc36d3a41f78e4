"""A campaign, pure: its specification, its life, its search, its stopping rule and its standings.

Nothing here touches a clock, a disk or a network. Import from the modules: reading a state must not load Optuna.
"""
