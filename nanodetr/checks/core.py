"Seed: replaced by nbs/solutions/00_how_checkers_work.ipynb."
import torch


def difference(mine, theirs) -> float:
    "Largest absolute difference of two results (tensors, numbers, or nested tuples and lists of them); inf where shapes differ."
    if isinstance(theirs, (tuple, list)):
        if not isinstance(mine, (tuple, list)) or len(mine) != len(theirs): return float("inf")
        return max((difference(m, t) for m, t in zip(mine, theirs)), default=0.0)
    mine, theirs = torch.as_tensor(mine), torch.as_tensor(theirs)
    if mine.shape != theirs.shape: return float("inf")
    if mine.numel() == 0: return 0.0
    gap = (mine.double() - theirs.double()).abs()
    gap[(mine == theirs)] = 0.0  # equal infinities are equal
    return float("inf") if gap.isnan().any() else gap.max().item()


def compare(name: str, yours, referee, cases: dict, tol: float = 1e-5, near: dict = None) -> bool:
    """Run `yours` and `referee` on every case and print one line: right, close, or how far off.

    cases: {what the case is about: tuple of arguments}; near: {remark: function of the referee's answer} tried when
    the answer is wrong, to say "close: it is the transpose". Never raises for a wrong answer.
    """
    near = near or {}
    passed, failed = [], []
    for what, arguments in cases.items():
        theirs = referee(*arguments)
        try:
            mine = yours(*arguments)
            gap = difference(mine, theirs)
        except Exception as error:  # the learner's own code may do anything
            print(f"{name}: not yet. On {what} it raised {type(error).__name__}: {error}")
            return False
        if gap <= tol: passed.append(what); continue
        for remark, change in near.items():
            if difference(mine, change(theirs)) <= tol:
                print(f"{name}: close: {remark} (on {what}).")
                return False
        shape = "" if not hasattr(mine, "shape") or mine.shape == theirs.shape else f" Yours has shape {tuple(mine.shape)}, wanted {tuple(theirs.shape)}."
        failed.append((what, gap, shape))
    if not failed:
        print(f"{name}: right, on {len(passed)} cases.")
        return True
    what, gap, shape = failed[0]
    kind = "close" if passed else "not yet"
    also = f" Right on: {', '.join(passed)}." if passed else ""
    print(f"{name}: {kind}: on {what} the largest difference is {gap:.3g}.{shape}{also}")
    return False
