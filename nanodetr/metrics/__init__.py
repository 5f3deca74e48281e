"Behind the scenes of evaluation: the fast matching, and pycocotools as the referee."
