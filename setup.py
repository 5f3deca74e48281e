"Packaging for pip: every field comes from settings.ini, which nbdev reads too."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]



class WithoutIndex(build_py):
    "The library without nbdev's index of it, which only nbdev reads."

    def find_package_modules(self, package, package_dir):
        return [found for found in super().find_package_modules(package, package_dir) if found[1] != "_modidx"]


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="MIT",
    keywords=settings["keywords"],
    python_requires=">=" + settings["min_python"],
    packages=find_packages(include=["nanodetr", "nanodetr.*"]),
    package_data={"nanodetr": ["weights/*.json", "weights/*/*", "weights/*/snapshots/*", "explorers/*.js"]},
    install_requires=settings["requirements"].split(),
    extras_require={name: settings[f"{name}_requirements"].split() for name in ("dev", "hub", "video", "onnx", "notebook", "docs")},
    entry_points={"console_scripts": settings["console_scripts"].split()},
    cmdclass={"build_py": WithoutIndex},
    zip_safe=False,
    classifiers=[
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
