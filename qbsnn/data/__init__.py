from qbsnn.data.base import DataModule
from qbsnn.data.events.folder import EventFolder
from qbsnn.data.events.module import EventDataModule
from qbsnn.data.events.simulate import PixelModel
from qbsnn.data.events.simulated_sets import SimulatedDigitsDVS, SimulatedFashionDVS
from qbsnn.data.events.tonic_sets import CIFAR10DVS, NMNIST, SHD, DVS128Gesture
from qbsnn.data.images.arrays import ImageDataModule
from qbsnn.data.images.cifar import CIFAR10, CIFAR100
from qbsnn.data.images.digits import Digits
from qbsnn.data.images.files import FileDataModule
from qbsnn.data.images.folder import ImageFolder
from qbsnn.data.images.imagenet import ImageNet, TinyImageNet
from qbsnn.data.images.mnist import MNIST, FashionMNIST

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
    "EventFolder",
    "FashionMNIST",
    "FileDataModule",
    "ImageDataModule",
    "ImageFolder",
    "ImageNet",
    "PixelModel",
    "SimulatedDigitsDVS",
    "SimulatedFashionDVS",
    "TinyImageNet",
]
