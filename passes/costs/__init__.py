"""The cost of a program's layers as functions of their widths, and the models that tell it in milliseconds.

`counting` counts what each layer has to do at any widths; a `cost_model` turns that into milliseconds. No clock is read
here: models are measured, predicted and read from files in runtime/.
"""
