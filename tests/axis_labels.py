"""Which axes of a figure say what they show."""


def unlabelled(figure):
    """The x and y axes that are drawn with data and have no label: their own, one of their row, or their figure's."""
    missing = []
    for axes in figure.axes:
        if axes.axison and axes.has_data():
            of_x = (axes.get_shared_x_axes(), "get_xlabel", axes.figure.get_supxlabel())
            of_y = (axes.get_shared_y_axes(), "get_ylabel", axes.figure.get_supylabel())
            for name, (shared, label, of_figure) in {"x": of_x, "y": of_y}.items():
                if not of_figure and not any(getattr(other, label)() for other in shared.get_siblings(axes)):
                    missing.append((name, axes.get_title()))
    return missing
