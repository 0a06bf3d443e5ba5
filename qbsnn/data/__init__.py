from qbsnn.data.base import DataModule
from qbsnn.data.cifar import CIFAR10, CIFAR100
from qbsnn.data.digits import Digits
from qbsnn.data.event_module import EventDataModule
from qbsnn.data.image_files import FileDataModule
from qbsnn.data.imagenet import ImageNet, TinyImageNet
from qbsnn.data.images import ImageDataModule
from qbsnn.data.mnist import MNIST, FashionMNIST
from qbsnn.data.simulate import PixelModel
from qbsnn.data.simulated_sets import SimulatedDigitsDVS, SimulatedFashionDVS
from qbsnn.data.tonic_sets import CIFAR10DVS, NMNIST, SHD, DVS128Gesture

__all__ = [
    "CIFAR10",
    "CIFAR10DVS",
    "CIFAR100",
    "MNIST",
    "NMNIST",
    "SHD",
    "DVS128Gesture",
    "DataModule",
    "Digits",
    "EventDataModule",
    "FashionMNIST",
    "FileDataModule",
    "ImageDataModule",
    "ImageNet",
    "PixelModel",
    "SimulatedDigitsDVS",
    "SimulatedFashionDVS",
    "TinyImageNet",
]
