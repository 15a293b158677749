"""Export boxes as files that other tools read: Pascal VOC, COCO, YOLO."""
