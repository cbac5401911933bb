#pragma once

#include <cstdint>

namespace det_coco {

// Resizes a picture [height, width, 3] to [3, new_height, new_width], by the numbers of Pillow's bilinear filter.
void resize_as_pillow(const uint8_t* picture, int height, int width, uint8_t* out, int new_height, int new_width);

// The same by those of OpenCV's INTER_LINEAR.
void resize_as_opencv(const uint8_t* picture, int height, int width, uint8_t* out, int new_height, int new_width);

// The same by those of torch's bilinear interpolation without antialiasing, up to rounding; out is not rounded.
void resize_as_torch(const uint8_t* picture, int height, int width, float* out, int new_height, int new_width);

}  // namespace det_coco
