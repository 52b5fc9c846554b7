"""Images as data: a path in ``sweep.task`` that is a folder of class folders, a parquet file of
images and labels, or a folder of such files. ``decoding`` is the only place that knows Pillow.

    ./pets/cat/1.png, ./pets/dog/2.png      a folder of class folders; every fifth image of a class
                                            is kept for evaluation
    ./pets/train/cat/…, ./pets/test/cat/…   the same with splits that are given
    ./mnist/train.parquet, test.parquet     columns of a hub: ``image`` (or ``img``) with the bytes
                                            of a file, and ``label``
    ./mnist.parquet                         one file, its rows split as a class's images are

A name is a path where it has a ``/`` or ends in ``.parquet``.
"""

from edgesweep.tasks.vision.images import image_task, is_images

__all__ = ["image_task", "is_images"]
