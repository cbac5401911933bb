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
    low_quality_iou: float,
    reassign_low_quality: bool,
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

def fast_nms_float32(
    boxes_ptr: int,
    scores_ptr: int,
    scores_image_stride: int,
    scores_class_stride: int,
    scores_box_stride: int,
    valid_ptr: int,
    batch: int,
    classes: int,
    boxes: int,
    iou_threshold: float,
    top_k: int,
    max_output: int,
    threads: int,
    indices_ptr: int,
    labels_ptr: int,
    kept_ptr: int,
    /,
) -> None: ...

fast_nms_float64 = fast_nms_float32

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

def roi_align_forward_float32(
    feature_ptrs: list[int],
    heights: list[int],
    widths: list[int],
    scales: list[float],
    batch: int,
    channels: int,
    boxes_ptr: int,
    image_index_ptr: int,
    levels_ptr: int,
    regions: int,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...

roi_align_forward_float64 = roi_align_forward_float32

def roi_align_backward_float32(
    grad_feature_ptrs: list[int],
    heights: list[int],
    widths: list[int],
    scales: list[float],
    batch: int,
    channels: int,
    boxes_ptr: int,
    image_index_ptr: int,
    levels_ptr: int,
    regions: int,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
    channels_last: bool,
    threads: int,
    grad_ptr: int,
    /,
) -> None: ...

roi_align_backward_float64 = roi_align_backward_float32

def rasterize_polygons(
    edges_ptr: int,
    edges: int,
    polygons_ptr: int,
    polygons: int,
    instances_ptr: int,
    instances: int,
    batch: int,
    image_index_ptr: int,
    instance_ptr: int,
    boxes_ptr: int,
    regions: int,
    size: int,
    legacy: bool,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...
def bitmap_targets(
    bitmaps_ptr: int,
    batch: int,
    slots: int,
    height: int,
    width: int,
    image_index_ptr: int,
    instance_ptr: int,
    boxes_ptr: int,
    regions: int,
    size: int,
    aligned: bool,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...
def paste_masks(
    masks_ptr: int,
    boxes_ptr: int,
    masks: int,
    mask_height: int,
    mask_width: int,
    height: int,
    width: int,
    threshold: float,
    binary: bool,
    expanded: bool,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...
def paste_to_rle(
    masks_ptr: int,
    boxes_ptr: int,
    masks: int,
    mask_height: int,
    mask_width: int,
    height: int,
    width: int,
    threshold: float,
    expanded: bool,
    threads: int,
    /,
) -> list[str]: ...
def encode_rle(masks_ptr: int, masks: int, height: int, width: int, threads: int, /) -> list[str]: ...

# Sizes are channels, size, kernel, output, stride, padding, dilation (each of rows, columns), groups, offset groups.
def deform_columns_float32(
    sizes: list[int],
    input_ptr: int,
    offset_ptr: int,
    mask_ptr: int,
    image: int,
    first: int,
    count: int,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...

deform_columns_float64 = deform_columns_float32

def deform_columns_backward_float32(
    sizes: list[int],
    input_ptr: int,
    offset_ptr: int,
    mask_ptr: int,
    image: int,
    first: int,
    count: int,
    threads: int,
    grad_ptr: int,
    grad_input_ptr: int,
    grad_offset_ptr: int,
    grad_mask_ptr: int,
    /,
) -> None: ...

deform_columns_backward_float64 = deform_columns_backward_float32

def mask_logits_float32(
    regions: int,
    height: int,
    width: int,
    depth: int,
    channels: int,
    pixels_ptr: int,
    panels_ptr: int,
    bias_ptr: int,
    own_ptr: int,
    threads: int,
    logits_ptr: int,
    /,
) -> None: ...

mask_logits_float64 = mask_logits_float32

def mask_logits_pack_float32(
    depth: int, channels: int, weight_ptr: int, strides: tuple[int, ...], threads: int, panels_ptr: int, /
) -> None: ...

mask_logits_pack_float64 = mask_logits_pack_float32

def mask_logits_panels_size_float32(depth: int, channels: int, /) -> int: ...

mask_logits_panels_size_float64 = mask_logits_panels_size_float32

def has_bfloat16() -> bool: ...
def winograd_input_float32(
    geometry: list[int], maps_ptr: int, begin: int, count: int, threads: int, planes_ptr: int, /
) -> None: ...

winograd_input_float64 = winograd_input_float32
winograd_input_bfloat16 = winograd_input_float32
winograd_gradient_float32 = winograd_input_float32
winograd_gradient_float64 = winograd_input_float32
winograd_gradient_bfloat16 = winograd_input_float32

def winograd_convolve_float32(
    in_geometry: list[int],
    out_geometry: list[int],
    tiles: int,
    in_ptr: int,
    panels_ptr: int,
    bias_ptr: int,
    relu: bool,
    threads: int,
    out_ptr: int,
    /,
) -> None: ...

winograd_convolve_float64 = winograd_convolve_float32
winograd_convolve_bfloat16 = winograd_convolve_float32
winograd_convolve_bfloat16_by_float32 = winograd_convolve_float32

def winograd_panels_size_float32(depth: int, channels: int, /) -> int: ...

winograd_panels_size_float64 = winograd_panels_size_float32
winograd_panels_size_bfloat16 = winograd_panels_size_float32

def winograd_weight_panels_float32(
    depth: int, channels: int, taps_ptr: int, flip: bool, threads: int, panels_ptr: int, /
) -> None: ...

winograd_weight_panels_float64 = winograd_weight_panels_float32
winograd_weight_panels_bfloat16 = winograd_weight_panels_float32

def winograd_weight_gradient_float32(n: int, planes_ptr: int, threads: int, taps_ptr: int, /) -> None: ...

winograd_weight_gradient_float64 = winograd_weight_gradient_float32
