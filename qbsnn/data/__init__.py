from qbsnn.data.cifar import CIFAR10, CIFAR100
from qbsnn.data.digits import Digits
from qbsnn.data.images import ImageDataModule
from qbsnn.data.mnist import MNIST, FashionMNIST
from qbsnn.data.pixels import check_pixels

__all__ = ["CIFAR10", "CIFAR100", "MNIST", "Digits", "FashionMNIST", "ImageDataModule", "check_pixels"]
