"""Words that say what is done against imbalance, wrong labels and overfitting."""
