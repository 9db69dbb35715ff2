"""The "Gradient flow" tab of TensorBoard.

TensorBoard imports this in its own process, and an import that fails takes the whole of
TensorBoard down with it: nothing here may need more than the standard library, numpy,
werkzeug and TensorBoard itself.
"""
