# ruff: noqa: N999
# Kernels over raw buffers. A `*_ptr` is the address of contiguous memory (Tensor.data_ptr()), 0 where it is absent.
# Nothing is checked. All release the interpreter lock.

def match_float32(
    anchors_ptr: int,
    shared: bool,
    anchors: int,
    truth_ptr: int,
    valid_ptr: int,
    batch: int,
    truths: int,
    high: float,
    low: float,
    allow_low_quality: bool,
    offset: float,
    threads: int,
    index_ptr: int,
    label_ptr: int,
    /,
) -> None: ...

match_float64 = match_float32

def nms_float32(
    boxes_ptr: int,
    scores_ptr: int,
    groups_ptr: int,
    valid_ptr: int,
    batch: int,
    boxes: int,
    iou_threshold: float,
    max_output: int,
    offset: float,
    threads: int,
    indices_ptr: int,
    kept_ptr: int,
    /,
) -> None: ...

nms_float64 = nms_float32

def sample_float32(
    labels_ptr: int,
    keys_ptr: int,
    batch: int,
    labels: int,
    slots: int,
    max_positive: int,
    threads: int,
    index_ptr: int,
    positive_ptr: int,
    valid_ptr: int,
    /,
) -> None: ...

sample_float64 = sample_float32
