"""Export boxes as files that other tools read: VOC, COCO, YOLO, Label Studio, CVAT."""
