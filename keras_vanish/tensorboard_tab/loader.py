"""The loader that TensorBoard finds through the entry point `tensorboard_plugins`."""

from __future__ import annotations

import argparse

from tensorboard.plugins import base_plugin

from keras_vanish.logs.tags import PLUGIN

#: How many recorded steps of a run TensorBoard keeps; its own default is ten.
SAMPLES = 2000


class GradientFlowLoader(base_plugin.TBLoader):
    """Loads the tab, and makes TensorBoard keep enough of its data."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Raises the number of samples, unless the user's own flag sets it."""
        samples = dict(getattr(flags, "samples_per_plugin", None) or {})
        samples.setdefault(PLUGIN, SAMPLES)
        flags.samples_per_plugin = samples

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """Makes the tab; None if TensorBoard runs without a data provider.

        Args:
            context: The context that TensorBoard gives to plugins.
        """
        if context.data_provider is None:
            return None
        # Only here: TensorBoard logs what fails in `load`, and starts without the tab.
        from keras_vanish.tensorboard_tab.plugin import GradientFlowPlugin

        return GradientFlowPlugin(context)
